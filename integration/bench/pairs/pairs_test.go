package pairs

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long anything may take before it counts as lost.
const patience = 30 * time.Second

// stateCallers are how many call a store at once.
var stateCallers = []int{1, 16, 64}

// text makes each value about 1 KiB.
var text = strings.Repeat("x", 1000)

// compare measures both sides of a pair under one name.
func compare(b *testing.B, name string, raw, bannou func(b *testing.B)) {
	b.Run(name+"/raw", raw)
	b.Run(name+"/bannou", bannou)
}

// A call does the measured work once and checks what came of it. It is called from several goroutines; caller, from 0,
// tells them apart.
type call func(ctx context.Context, caller int) error

// compareCalls measures calls that wait for their own result, at each number of callers.
func compareCalls(b *testing.B, name string, callers []int, raw, bannou call) {
	for _, n := range callers {
		compare(b, named(name, n), from(n, raw), from(n, bannou))
	}
}

func named(name string, callers int) string {
	if callers == 1 {
		return name + "/1_caller"
	}
	return fmt.Sprintf("%s/%d_callers", name, callers)
}

// from makes b.N calls from exactly so many goroutines, whatever GOMAXPROCS is.
func from(callers int, work call) func(b *testing.B) {
	return func(b *testing.B) {
		ctx := b.Context()
		b.ReportAllocs()
		b.ResetTimer()
		together(b, callers, b.N, func(caller, _ int) error { return work(ctx, caller) })
		b.StopTimer()
	}
}

// together does work for each number below n, from so many goroutines, and waits for them. The first error of each ends it.
func together(b *testing.B, callers, n int, work func(caller, number int) error) {
	b.Helper()
	var next atomic.Int64
	var wait sync.WaitGroup
	for caller := range callers {
		wait.Go(func() {
			for number := int(next.Add(1)) - 1; number < n; number = int(next.Add(1)) - 1 {
				if err := work(caller, number); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// A tally sees to it that each of n numbered events is handled exactly once.
type tally struct {
	seen []atomic.Bool
	left atomic.Int64
	all  chan struct{} // closed when every number was seen
	odd  atomic.Int64  // doubles and numbers that nobody sent
}

func newTally(n int) *tally {
	t := &tally{seen: make([]atomic.Bool, n), all: make(chan struct{})}
	t.left.Store(int64(n))
	return t
}

func (t *tally) add(number int) {
	if number < 0 || number >= len(t.seen) || t.seen[number].Swap(true) {
		t.odd.Add(1)
		return
	}
	if t.left.Add(-1) == 0 {
		close(t.all)
	}
}

// wait waits until every event was seen.
func (t *tally) wait(b *testing.B) {
	b.Helper()
	select {
	case <-t.all:
	case <-time.After(patience):
		b.Fatalf("%d of %d events were not handled", t.left.Load(), len(t.seen))
	}
}

// check is for when nothing more can come.
func (t *tally) check(b *testing.B) {
	b.Helper()
	require.Zero(b, t.odd.Load(), "events handled twice")
}
