package faults_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
)

func TestMemory(t *testing.T) {
	s := system{
		driver: "memory", kind: "memory", share: faults.Share, slack: faults.Slack,
		open:    func(log *slog.Logger) (bus.Driver, error) { return memorybus.New(memorybus.Config{Logger: log}), nil },
		inspect: func(context.Context) string { return "" },
	}
	for _, f := range []fault{poisoned(3), reopened(5)} {
		t.Run(f.name, func(t *testing.T) { endure(t, s, f) })
	}
}

// reopened closes the bus under load and opens another in its place, on the same driver.
func reopened(times int) fault {
	return fault{name: "bus closed and opened again", times: times, harm: func(ctx context.Context, r *run) error { return r.reopen(ctx) }}
}
