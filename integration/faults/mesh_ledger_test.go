package faults_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/pkg/mesh"
)

func TestMeshLedger(t *testing.T) {
	mapped := func(version int64, work string) mesh.Mappings {
		return mesh.Mappings{Version: version, Services: map[string]string{"work": work}}
	}
	toAlpha, toBeta := mapped(1, "alpha"), mapped(2, "beta")
	call := faults.Call{Number: 7, Target: "work", Kind: faults.Reads, Deadline: 5 * time.Second}
	hurried, once := call, call
	hurried.Deadline, once.Kind = 20*time.Millisecond, faults.Once
	from := func(appID string) faults.Answer {
		return faults.Answer{AppID: appID, InstanceID: appID + "-1", Call: 7}
	}
	other := from("alpha")
	other.Call = 8
	failure := errors.New("it broke off")
	for _, c := range []struct {
		name    string
		outcome faults.Outcome
		want    faults.MeshTotals
	}{
		{"answered", faults.Outcome{Call: call, Before: toAlpha, After: toAlpha, Answer: from("alpha"), Attempts: 1}, faults.MeshTotals{Succeeded: 1}},
		{"at the third attempt", faults.Outcome{Call: call, Before: toAlpha, After: toAlpha, Answer: from("alpha"), Attempts: 3}, faults.MeshTotals{Succeeded: 1, Retried: 2}},
		{"by the wrong app-id", faults.Outcome{Call: call, Before: toAlpha, After: toAlpha, Answer: from("beta")}, faults.MeshTotals{Succeeded: 1, Wrong: 1}},
		{"by the one before the change", faults.Outcome{Call: call, Before: toAlpha, After: toBeta, Answer: from("alpha")}, faults.MeshTotals{Succeeded: 1}},
		{"by the one after the change", faults.Outcome{Call: call, Before: toAlpha, After: toBeta, Answer: from("beta")}, faults.MeshTotals{Succeeded: 1}},
		{"by neither", faults.Outcome{Call: call, Before: toAlpha, After: toBeta, Answer: from("gamma")}, faults.MeshTotals{Succeeded: 1, Wrong: 1}},
		{"while versions went back", faults.Outcome{Call: call, Before: toBeta, After: toAlpha, Answer: from("beta")}, faults.MeshTotals{Succeeded: 1, Wrong: 1}},
		{"by a version that nobody set", faults.Outcome{Call: call, Before: mapped(2, "alpha"), After: mapped(2, "alpha"), Answer: from("alpha")}, faults.MeshTotals{Succeeded: 1, Wrong: 1}},
		{"another call", faults.Outcome{Call: call, Before: toAlpha, After: toAlpha, Answer: other}, faults.MeshTotals{Succeeded: 1, Wrong: 1}},
		{"failed", faults.Outcome{Call: call, Before: toAlpha, Err: failure}, faults.MeshTotals{Failed: 1}},
		{"failed, and must not be repeated", faults.Outcome{Call: once, Before: toAlpha, Err: failure}, faults.MeshTotals{OnceFailed: 1}},
		{"had no time", faults.Outcome{Call: hurried, Before: toAlpha, Err: context.DeadlineExceeded}, faults.MeshTotals{GivenUp: 1}},
		{"cancelled", faults.Outcome{Call: call, Before: toAlpha, Err: context.Canceled}, faults.MeshTotals{GivenUp: 1}},
		{"late", faults.Outcome{Call: hurried, Before: toAlpha, Err: context.DeadlineExceeded, Overdue: faults.MeshSlack + 1}, faults.MeshTotals{GivenUp: 1, Late: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := faults.NewMeshLedger()
			l.Mapped(toAlpha)
			l.Mapped(toBeta)
			l.Begin()
			l.End(c.outcome)
			c.want.Calls = 1
			require.Equal(t, c.want, l.Totals())
			require.Equal(t, c.want, l.Totals(), "asked once more")
		})
	}

	l := faults.NewMeshLedger()
	l.Handled(1)
	l.Handled(2)
	l.Handled(2)
	require.Equal(t, faults.MeshTotals{Twice: 1}, l.Totals())
}
