package mirror

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

// opened is a mirrored store, and the same store in its other place.
func opened(t *testing.T, to Counterpart, cfg Config) (here, there *state.Store[int], ledger *Ledger) {
	t.Helper()
	ledger = NewLedger()
	cfg.Ledger, cfg.To = ledger, func(state.StoreConfig) (Counterpart, bool) { return to, true }
	d, err := Wrap(memorystate.New(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return view(t, d), view(t, to.Driver), ledger
}

func view(t *testing.T, d state.Driver) *state.Store[int] {
	t.Helper()
	f, err := state.NewFactory([]state.StoreConfig{{Name: "players", Backend: d.Backend()}}, []state.Driver{d}, state.Options{})
	require.NoError(t, err)
	s, err := state.Open[int](t.Context(), f, "players")
	require.NoError(t, err)
	return s
}

func none() int { return 0 }

func eventually(t *testing.T, ledger *Ledger, done func(r Report) bool) Report {
	t.Helper()
	var r Report
	require.Eventually(t, func() bool {
		r, _ = ledger.Report("players", Kept)
		return done(r)
	}, 30*time.Second, 5*time.Millisecond, "%+v", &r)
	return r
}

// Each reason is found by reading, counted by itself, and logged with a digest of the key and nothing of the value.
func TestDifferencesAreFound(t *testing.T) {
	var log syncBuffer
	here, there, ledger := opened(t, Counterpart{Driver: memorystate.New()}, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	ctx := t.Context()
	save := func(s *state.Store[int], key string, v int, o state.SaveOptions) {
		_, err := s.SaveWith(ctx, key, v, o)
		require.NoError(t, err)
	}
	for _, s := range []*state.Store[int]{here, there} {
		save(s, "same", 1, state.SaveOptions{})
	}
	save(here, "alice@example.org", 77001, state.SaveOptions{})
	save(there, "left", 1, state.SaveOptions{})
	save(here, "other", 1, state.SaveOptions{})
	save(there, "other", 2, state.SaveOptions{})
	save(here, "expiring", 1, state.SaveOptions{Expiry: state.After(time.Hour)})
	save(there, "expiring", 1, state.SaveOptions{})
	_, err := here.GetBulk(ctx, []string{"same", "alice@example.org", "left", "other", "expiring", "absent"})
	require.NoError(t, err)

	r := eventually(t, ledger, func(r Report) bool {
		return r.Waiting == 0 && r.Reasons[MissingHere] == 1 && r.Reasons[MissingThere] > 0 && r.Reasons[Value] > 0 && r.Reasons[Expiry] > 0
	})
	require.GreaterOrEqual(t, r.Compared, int64(6))
	require.Zero(t, r.Failures+r.Skipped)
	require.Equal(t, "memory", r.To)
	digests := map[string]Reason{}
	for _, f := range r.Recent {
		digests[f.Key] = f.Reason
	}
	require.Equal(t, MissingThere, digests[Digest("alice@example.org")])
	require.Contains(t, log.String(), "reason=")
	require.NotContains(t, log.String(), "alice")
	require.NotContains(t, log.String(), "77001")
	require.NotContains(t, fmt.Sprintf("%+v", r), "alice")
}

// With writes, the other place has every change that was made here in the end, whoever made them at once, and nothing differs.
func TestChangesAreCarried(t *testing.T) {
	here, there, ledger := opened(t, Counterpart{Driver: memorystate.New(), Writes: true}, Config{})
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := range 200 {
				key := fmt.Sprint((i*7 + w) % 20)
				if i%9 == 0 {
					_, err := here.Delete(context.Background(), key)
					require.NoError(t, err)
					continue
				}
				_, err := here.Save(context.Background(), key, w*1000+i)
				require.NoError(t, err)
			}
		})
	}
	writers.Wait()
	require.Eventually(t, func() bool {
		for i := range 20 {
			a, errA := here.GetWithETag(t.Context(), fmt.Sprint(i))
			b, errB := there.GetWithETag(t.Context(), fmt.Sprint(i))
			if (errA == nil) != (errB == nil) || a.Value != b.Value {
				return false
			}
		}
		return true
	}, 30*time.Second, 10*time.Millisecond)
	r := eventually(t, ledger, func(r Report) bool { return r.Waiting == 0 && r.Carried > 0 })
	require.Zero(t, r.Different, "%+v", r)
	require.Zero(t, r.Uncarried)
}

// A counterpart that dies in the middle is a line in the report. Callers go on as before, none of them fails or waits for it, and what
// could not be looked at is counted.
func TestCounterpartDies(t *testing.T) {
	other := memorystate.New()
	here, _, ledger := opened(t, Counterpart{Driver: other, Writes: true, Queue: 50}, Config{})
	ctx := t.Context()
	for i := range 100 {
		_, err := here.Save(ctx, fmt.Sprint(i), i)
		require.NoError(t, err)
	}
	eventually(t, ledger, func(r Report) bool { return r.Compared > 0 })
	require.NoError(t, other.Close())
	for i := range 1000 {
		_, err := here.Save(ctx, fmt.Sprint(i), i)
		require.NoError(t, err)
		_, err = here.Get(ctx, fmt.Sprint(i))
		require.NoError(t, err)
	}
	r := eventually(t, ledger, func(r Report) bool { return r.Failures > 0 && r.Uncarried > 0 })
	require.Equal(t, state.ErrUnavailable.Error(), r.LastFailure)
	require.NotNil(t, r.FailedAt)
}

// A place is a driver that is away at times.
type place struct {
	state.Driver
	away atomic.Bool
	once atomic.Bool // for one call
}

func (p *place) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	if p.away.Load() || p.once.CompareAndSwap(true, false) {
		return nil, state.ErrUnavailable
	}
	return p.Driver.Open(ctx, cfg)
}

// A counterpart that does not answer once is asked again, as one is that differs: it is no failure, which a window of a quarter of an hour would keep.
func TestACounterpartIsAskedAgain(t *testing.T) {
	other := &place{Driver: memorystate.New()}
	there := view(t, other)
	other.once.Store(true)
	ledger := NewLedger()
	d, err := Wrap(memorystate.New(), Config{Ledger: ledger, To: func(state.StoreConfig) (Counterpart, bool) { return Counterpart{Driver: other}, true }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	here := view(t, d)
	for _, s := range []*state.Store[int]{there, here} {
		_, err := s.Save(t.Context(), "k", 1)
		require.NoError(t, err)
	}
	r := eventually(t, ledger, func(r Report) bool { return r.Compared+r.Failures > 0 })
	require.False(t, other.once.Load())
	require.Zero(t, r.Failures, "%+v", r)
	require.Zero(t, r.Different, "%+v", r)
}

// Changes that are made while the other place is away are there once it is back, also when nobody makes another one, and also when the node
// that made them ends before.
func TestChangesWaitForTheOtherPlace(t *testing.T) {
	for _, ends := range []bool{false, true} {
		t.Run(fmt.Sprint("ends=", ends), func(t *testing.T) {
			other := &place{Driver: memorystate.New()}
			ledger := NewLedger()
			d, err := Wrap(memorystate.New(), Config{Ledger: ledger, To: func(state.StoreConfig) (Counterpart, bool) {
				return Counterpart{Driver: other, Writes: true}, true
			}})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, d.Close()) })
			here, there := view(t, d), view(t, other)
			other.away.Store(true)
			for i := range 500 {
				_, err := here.Save(t.Context(), fmt.Sprint(i), i)
				require.NoError(t, err)
			}
			eventually(t, ledger, func(r Report) bool { return r.FailedAt != nil })
			r, _ := ledger.Report("players", Kept)
			require.Equal(t, 500, r.Pending, "what would not be there after a switch now")
			other.away.Store(false)
			if ends {
				d.(state.Settler).Settle()
			}
			carried := func() bool {
				for i := range 500 {
					if v, err := there.Get(t.Context(), fmt.Sprint(i)); err != nil || v != i {
						return false
					}
				}
				return true
			}
			if ends {
				require.True(t, carried(), "nothing was left when the node ended")
				return
			}
			require.Eventually(t, carried, 30*time.Second, 5*time.Millisecond)
			r = eventually(t, ledger, func(r Report) bool { return r.Pending == 0 })
			require.Zero(t, r.Uncarried)
		})
	}
}

// A change that was not carried is one as long as the process runs: no span of time brings its key in line.
func TestUncarriedChangesAreNotForgotten(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	l := NewLedger()
	l.now = func() time.Time { return now }
	l.open("players", &Counterpart{Driver: memorystate.New()}, none, none)
	l.add("players", func(a *account, _ *tally) { a.uncarried++ })
	now = now.Add(2 * Kept)
	r, _ := l.Report("players", time.Minute)
	require.EqualValues(t, 1, r.Uncarried)
}

// A key that is written all the time is busy, not different.
func TestBusyKeysAreNotDifferent(t *testing.T) {
	here, _, ledger := opened(t, Counterpart{Driver: memorystate.New()}, Config{})
	ctx, stop := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_, _ = here.Save(ctx, "hot", i)
		}
	})
	r := eventually(t, ledger, func(r Report) bool { return r.Busy > 0 })
	stop()
	writer.Wait()
	require.Zero(t, r.Different, "%+v", r)
}

// A share of the keys is compared where a share is asked for.
func TestSample(t *testing.T) {
	here, _, ledger := opened(t, Counterpart{Driver: memorystate.New(), Sample: 0.1, Queue: 100_000}, Config{})
	for i := range 5000 {
		_, err := here.GetBulk(t.Context(), []string{fmt.Sprint(i)})
		require.NoError(t, err)
	}
	r := eventually(t, ledger, func(r Report) bool { return r.Waiting == 0 && r.Compared > 300 })
	require.Less(t, r.Compared, int64(800))
}

// What is older than the window is not in the report, and what is older than an hour is gone.
func TestReportsOfAWindow(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	l := NewLedger()
	l.now = func() time.Time { return now }
	l.open("players", &Counterpart{Driver: memorystate.New()}, none, none)
	compare := func(n int64) { l.add("players", func(_ *account, of *tally) { of.compared += n }) }
	compare(1)
	now = now.Add(10 * time.Minute)
	compare(10)
	l.differs("players", "k", Value)
	now = now.Add(20 * time.Minute)
	compare(100)
	within := func(d time.Duration) [2]int64 {
		r, ok := l.Report("players", d)
		require.True(t, ok)
		return [2]int64{r.Compared, r.Different}
	}
	require.Equal(t, [2]int64{100, 0}, within(5*time.Minute))
	require.Equal(t, [2]int64{111, 1}, within(25*time.Minute))
	require.Equal(t, [2]int64{112, 1}, within(Kept))
	now = now.Add(50 * time.Minute)
	require.Equal(t, [2]int64{100, 0}, within(Kept))
	_, ok := l.Report("other", time.Minute)
	require.False(t, ok)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
