package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// MeshSlack is how much later than its deadline a call may return: the scheduler's share, with callers and instances on the same cores.
const MeshSlack = 500 * time.Millisecond

// A Call is one call of a MeshLoad.
type Call struct {
	Number   int
	Target   string // a service, or an app-id
	Kind     CallKind
	Deadline time.Duration
}

// A CallKind is whether a call may be made twice.
type CallKind string

// The kinds. Only a Once call must not reach an instance twice, whatever happens to the first attempt.
const (
	Reads CallKind = "reads" // GET
	Keyed CallKind = "keyed" // POST with an idempotency key
	Once  CallKind = "once"  // POST without one
)

// hurried reports whether the call's deadline is so short that it may not be answered without anybody's fault.
func (c Call) hurried() bool { return c.Deadline < time.Second }

// An Answer is what an instance says of itself, and of the call that it answers.
type Answer struct {
	AppID      string `json:"appId"`
	InstanceID string `json:"instanceId"`
	Call       int    `json:"call"`
}

// An Outcome is how a call ended.
type Outcome struct {
	Call          Call
	Before, After mesh.Mappings // as the caller's directory had them when the call began, and when it ended
	Answer        Answer        // where Err is nil
	Err           error
	Attempts      int // requests to instances
	Overdue       time.Duration
}

// A MeshLedger knows what became of the calls. It is safe for concurrent use.
//
// A call went to the wrong place when who answered is another app-id than the mappings say, in each of the versions that the caller's
// directory had from the call's begin to its end; when it answers another call; or when the directory went back to an older version, or
// had one that was not as it was set.
type MeshLedger struct {
	mu       sync.Mutex
	totals   MeshTotals
	answered map[string]int // by instance id
	handled  map[int]int    // Once calls, by number
	versions map[int64]mesh.Mappings
	seen     map[int64]mesh.Mappings // by version, as a caller's directory had them
	open     []Outcome               // those that are judged when all versions are known
	remarks  []string
}

// MeshTotals are a MeshLedger's sums.
type MeshTotals struct {
	Calls, Succeeded int
	Failed           int // calls that may be made twice, had time, and failed
	GivenUp          int // calls with a deadline of milliseconds that were not answered, and calls that the caller cancelled
	OnceFailed       int // calls that must not be made twice, and failed
	Wrong            int // answered by the wrong app-id
	Retried          int // attempts after the first
	Twice            int // calls that must not be made twice, and reached instances more often than once
	Late             int // returned later than MeshSlack after their deadline
}

// NewMeshLedger returns an empty ledger.
func NewMeshLedger() *MeshLedger {
	return &MeshLedger{answered: map[string]int{}, handled: map[int]int{}, versions: map[int64]mesh.Mappings{}, seen: map[int64]mesh.Mappings{}}
}

// Begin enters a call and returns its number.
func (l *MeshLedger) Begin() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.totals.Calls++
	return l.totals.Calls
}

// End enters how a call ended.
func (l *MeshLedger) End(o Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &l.totals
	t.Retried += max(0, o.Attempts-1)
	l.seen[o.Before.Version] = o.Before
	if o.Overdue > MeshSlack {
		t.Late++
		l.remark("late by %s: %+v, %v", o.Overdue, o.Call, o.Err)
	}
	switch {
	case o.Err == nil:
		t.Succeeded++
		l.answered[o.Answer.InstanceID]++
		l.judge(o)
	case o.Call.hurried(), errors.Is(o.Err, context.Canceled):
		t.GivenUp++
	case o.Call.Kind == Once:
		t.OnceFailed++
	default:
		t.Failed++
		l.remark("failed after %d attempts: %+v, %v", o.Attempts, o.Call, o.Err)
	}
}

// judge looks at who answered. The caller holds mu.
func (l *MeshLedger) judge(o Outcome) {
	switch {
	case o.Answer.Call != o.Call.Number, o.After.Version < o.Before.Version:
		l.wrong(o)
	case o.After.Version > o.Before.Version:
		l.open = append(l.open, o)
	case o.Answer.AppID != appOf(o.Before, o.Call.Target):
		l.wrong(o)
	}
}

func (l *MeshLedger) wrong(o Outcome) {
	l.totals.Wrong++
	l.remark("wrong: %+v was answered by %+v, version %d to %d", o.Call, o.Answer, o.Before.Version, o.After.Version)
}

// appOf is the app-id that a target means: what is not mapped is an app-id.
func appOf(m mesh.Mappings, target string) string {
	if app := m.Services[target]; app != "" {
		return app
	}
	return target
}

// Mapped enters a version of the mappings.
func (l *MeshLedger) Mapped(m mesh.Mappings) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.versions[m.Version] = m
}

// Handled enters that a Once call has reached an instance.
func (l *MeshLedger) Handled(number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handled[number]++
}

// Settled is how many calls succeeded.
func (l *MeshLedger) Settled() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.totals.Succeeded
}

// AnsweredBy is how many calls an instance answered.
func (l *MeshLedger) AnsweredBy(instanceID string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answered[instanceID]
}

// Totals adds up, once all versions of the mappings have been entered.
func (l *MeshLedger) Totals() MeshTotals {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.open {
		meant := false
		for v := o.Before.Version; v <= o.After.Version && !meant; v++ {
			m, known := l.versions[v]
			meant = known && appOf(m, o.Call.Target) == o.Answer.AppID
		}
		if !meant {
			l.wrong(o)
		}
	}
	l.open = nil
	for v, m := range l.seen {
		if set, known := l.versions[v]; known && !maps.Equal(set.Services, m.Services) {
			l.totals.Wrong++
			l.remark("wrong: version %d was set to %v, and known as %v", v, set.Services, m.Services)
		}
		delete(l.seen, v)
	}
	t := l.totals
	for number, times := range l.handled {
		if times > 1 {
			t.Twice++
			l.remark("call %d reached instances %d times", number, times)
		}
	}
	return t
}

// Versions is how many versions of the mappings calls began under.
func (l *MeshLedger) Versions() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen)
}

// Remarks describe up to twenty calls that should not have ended as they did.
func (l *MeshLedger) Remarks() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.remarks)
}

func (l *MeshLedger) remark(format string, values ...any) {
	if most := 20; len(l.remarks) < most {
		l.remarks = append(l.remarks, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, values...))
	}
}
