package migrate

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A sluggish engine takes no more than some keys, or bytes, in the time there is.
type sluggish struct {
	state.Scanner
	keys, bytes int
	most        atomic.Int64 // keys of one call
}

func (e *sluggish) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	bytes := 0
	for _, c := range changes {
		bytes += len(c.Value)
	}
	e.most.Store(max(e.most.Load(), int64(len(changes))))
	if len(changes) > e.keys || bytes > e.bytes {
		<-ctx.Done()
		return nil, fmt.Errorf("%w: %w", state.ErrUnavailable, ctx.Err())
	}
	return e.Scanner.Apply(ctx, changes)
}

// What a node carries is cut so that the other place can take it.
func TestFollowerCutsWhatItCarries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name               string
		keys, bytes, value int
	}{
		{"a slow place", 30, 1 << 30, 1},
		{"large values", 1 << 30, 16 << 20, 256 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			from, to := drivers(t)
			m := openMemory(t, from, to, Options{})
			slow := &sluggish{Scanner: m.to.engine, keys: c.keys, bytes: c.bytes}
			m.to.engine = slow
			ctx, stop := context.WithCancel(t.Context())
			f := &follower{store: "s", log: slog.New(slog.DiscardHandler), ctx: ctx, count: func(int, int) {}}
			v := &view{record: record{Epoch: 1, Phase: Mirror}, from: m.from, to: m.to}
			go func() { // as a store does that is in use
				for until := time.Now(); ; until = time.Now() {
					until = until.Add(Lease)
					v.until.Store(&until)
					if !wait(ctx, lookEvery) {
						return
					}
				}
			}()
			require.Eventually(t, func() bool { return v.until.Load() != nil }, 30*time.Second, time.Millisecond)
			const wishes, keysEach = 8, 40
			value := fmt.Sprintf("%q", strings.Repeat("x", c.value))
			for w := range wishes {
				keys := make([]string, keysEach)
				for i := range keys {
					keys[i] = fmt.Sprint("k-", w, "-", i)
					put(t, m.from.engine, keys[i], value)
				}
				require.True(t, f.add(wish{v, intent{keys: keys}}))
			}
			require.Eventually(t, func() bool {
				n, err := m.to.engine.Len(t.Context())
				return err == nil && n == wishes*keysEach
			}, 3*time.Minute, 20*time.Millisecond)
			require.LessOrEqual(t, slow.most.Load(), int64(followBatch))
			stop()
			f.close()
		})
	}
}

// What is taken at a time is bounded in keys, not only in changes.
func TestFollowerTakesSoManyKeys(t *testing.T) {
	f := &follower{}
	v := &view{}
	for range 10 {
		f.waiting = append(f.waiting, wish{v, intent{keys: make([]string, 200)}})
	}
	require.Len(t, f.take(), 2)
	f.waiting = []wish{{v, intent{keys: make([]string, 1000)}}}
	require.Len(t, f.take(), 1)
}
