package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// StateShare is how much of the rate before has to come back. Rates of writes that wait for a disk differ by a tenth from second to second.
const StateShare = 0.75

// StateSlack is how much later than its deadline a write may return: the scheduler's share, with server and clients on the same cores.
const StateSlack = 500 * time.Millisecond

// stateWriters is how many goroutines write, each waiting for its own acknowledgement.
const stateWriters = 16

// A StateLoad writes to one store.
type StateLoad struct {
	Store *state.Store[int]
	Run   string // names its keys: no two loads on a store have the same
	Seed  uint64

	// What it reports to: a ledger, or the pipe of the process that has one.
	Begun func(w Write)
	Ended func(w Write, v Verdict, overdue time.Duration)
	Fail  func(err error)

	stalls stalls
}

// Write writes from several goroutines, and returns when ctx has ended and the last call has come back. Some deadlines are milliseconds.
func (l *StateLoad) Write(ctx context.Context) {
	defer l.stalls.watch(ctx)()
	var all sync.WaitGroup
	for n := range stateWriters {
		w := &stateWriter{load: l, number: n, random: rand.New(rand.NewPCG(l.Seed, uint64(n)))} //nolint:gosec // a schedule to be repeated
		all.Go(func() {
			for i := 1; ctx.Err() == nil; i++ {
				if !w.write(ctx, i) {
					_ = Pause(ctx, afterFailure) // the loop looks at ctx itself
				}
			}
		})
	}
	all.Wait()
}

// A stateWriter is one of a load's goroutines. It counts one key up, and makes others.
type stateWriter struct {
	load   *StateLoad
	number int
	random *rand.Rand
	count  int
	etag   string // of the counted key
	lost   bool   // the counted key has to be read: what became of the last count is not known
	onWay  bool   // a count whose outcome was unknown may still be on its way to the key, until a later one is acknowledged
}

// write makes one write, and reports whether it was acknowledged.
func (w *stateWriter) write(ctx context.Context, i int) bool {
	one := Write{Run: w.load.Run, Kind: Save, Writer: w.number, Number: i}
	switch w.random.IntN(6) {
	case 0:
		one.Kind = Pair
	case 1:
		if w.lost && !w.recover(ctx) {
			return false
		}
		one.Kind, one.Number = Count, w.count+1
	}
	deadline := 2 * time.Second
	if w.random.IntN(20) == 0 {
		deadline = time.Duration(5+w.random.IntN(45)) * time.Millisecond
	}
	w.load.Begun(one)
	begun := time.Now()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), deadline) // the end of the load ends no write
	defer cancel()
	err := w.make(bounded, one)
	v := w.judge(one, err)
	if v == Wrong {
		w.load.Fail(fmt.Errorf("%+v: %w", one, err))
	}
	w.load.Ended(one, v, w.load.stalls.overdue(begun.Add(deadline), time.Now()))
	return err == nil
}

func (w *stateWriter) make(ctx context.Context, one Write) error {
	store, keys := w.load.Store, one.keys()
	switch one.Kind {
	case Pair:
		_, err := store.Transact(ctx, []state.Op[int]{{Key: keys[0], Value: one.Number}, {Key: keys[1], Value: one.Number}})
		return err
	case Count:
		etag, err := store.TrySave(ctx, keys[0], one.Number, w.etag)
		if err == nil {
			w.count, w.etag = one.Number, etag
		}
		w.lost = err != nil
		return err
	default:
		_, err := store.Save(ctx, keys[0], one.Number)
		return err
	}
}

// judge is verdictOf, but for a count that follows one whose outcome was unknown: it has the same number, and when it conflicts then the
// one before was made after the key was read.
func (w *stateWriter) judge(one Write, err error) Verdict {
	v := verdictOf(err)
	if one.Kind != Count {
		return v
	}
	if w.onWay && errors.Is(err, state.ErrConflict) {
		return Unknown
	}
	w.onWay = v == Unknown || w.onWay && v != Acknowledged
	return v
}

// recover reads the counted key. A count that is still on its way may come after it: then the next one conflicts.
func (w *stateWriter) recover(ctx context.Context) bool {
	bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	e, err := w.load.Store.GetWithETag(bounded, Write{Run: w.load.Run, Kind: Count, Writer: w.number}.keys()[0])
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return false
	}
	w.count, w.etag, w.lost = e.Value, e.ETag, false
	return true
}
