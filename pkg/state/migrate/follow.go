package migrate

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

const (
	// followMost is how many changes may wait in a node to be carried. Over it, it is noted that a comparison is needed.
	followMost = 10_000
	// followBatch is how many are carried together, and how many of their keys at a time.
	followBatch = 100
	// followers is how many batches are carried at once.
	followers = 2
	// followTimeout bounds one try.
	followTimeout = 5 * time.Second
	// followQuiet is how often it is logged that changes cannot be carried.
	followQuiet = time.Minute
)

// A wish is a change that was made, to be carried to the other side, and the note of it.
type wish struct {
	view *view
	intent
}

// A follower carries a node's changes of one store to the other side, after they were made. Its goroutines come when there is something
// to carry and go when there is not.
type follower struct {
	store string
	log   *slog.Logger
	count func(carried, failed int)

	ctx  context.Context //nolint:containedctx // ends when the driver is closed
	done sync.WaitGroup

	mu      sync.Mutex
	waiting []wish
	busy    int
	closed  bool
	silent  time.Time // until when a failure is not logged
}

// add takes a change that was made. False: too many wait.
func (f *follower) add(w wish) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || len(f.waiting) >= followMost {
		return f.closed
	}
	f.waiting = append(f.waiting, w)
	if f.busy < followers {
		f.busy++
		f.done.Go(f.serve)
	}
	return true
}

// serve carries until nothing waits.
func (f *follower) serve() {
	for batch := f.take(); batch != nil; batch = f.take() {
		f.carry(batch)
	}
}

// take returns the next changes of one view.
func (f *follower) take() []wish {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, keys := 0, 0
	for n < len(f.waiting) && n < followBatch && f.waiting[n].view == f.waiting[0].view {
		if keys += len(f.waiting[n].keys); n > 0 && keys > batchKeys {
			break
		}
		n++
	}
	if n == 0 {
		f.busy--
		return nil
	}
	batch := f.waiting[:n:n]
	if f.waiting = f.waiting[n:]; len(f.waiting) == 0 {
		f.waiting = nil
	}
	return batch
}

// carry tries until the changes were carried, or are another's to carry: when the view ends, whoever ended it reads the notes. The keys go
// in pieces, smaller ones after one that was large or took too long.
func (f *follower) carry(batch []wish) {
	v := batch[0].view
	intents := make([]intent, len(batch))
	names := make([]string, 0, len(batch))
	for i, w := range batch {
		intents[i] = w.intent
		if w.name != "" {
			names = append(names, w.name)
		}
	}
	keys := keysOf(intents)
	var refused []KeyError
	most := followBatch // keys of a piece
	size := most
	for delay := 20 * time.Millisecond; ; {
		if f.ctx.Err() != nil || v.entitled() != nil {
			return
		}
		ctx, cancel := context.WithDeadline(f.ctx, earlier(time.Now().Add(followTimeout), *v.until.Load()))
		n := min(size, len(keys))
		measured := &measure{Engine: v.decides().engine}
		c := carrier{from: measured, to: v.other().engine, always: true, entitled: v.entitled}
		bad, err := c.carry(ctx, keys[:n])
		if err == nil {
			refused, keys = append(refused, bad...), keys[n:]
			f.count(n-len(bad), len(bad))
			if len(keys) == 0 && len(refused) == 0 {
				err = v.decides().withdraw(ctx, names)
			}
		}
		late := ctx.Err() != nil
		cancel()
		switch {
		case err == nil && len(keys) > 0:
			if measured.bytes > batchBytes {
				size = max(size/2, 1)
			} else if measured.bytes < batchBytes/4 {
				size = min(2*size, most)
			}
			delay = 20 * time.Millisecond
			continue
		case err == nil && len(refused) == 0:
			return
		case err == nil: // the notes stay: the decision does not move before they are settled
			f.failed(refused[0])
			return
		case errors.Is(err, errLate):
			return
		case late:
			size = max(n/2, 1)
			most = size
		}
		f.count(0, n)
		f.failed(err)
		if !wait(f.ctx, delay) {
			return
		}
		delay = min(2*delay, time.Second)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// failed logs once in a while.
func (f *follower) failed(err error) {
	f.mu.Lock()
	now := time.Now()
	silent := now.Before(f.silent)
	if !silent {
		f.silent = now.Add(followQuiet)
	}
	n := len(f.waiting)
	f.mu.Unlock()
	if !silent && f.ctx.Err() == nil {
		f.log.Warn("changes of a store that is being migrated could not be carried to the other place; it will be tried again", "store", f.store,
			"waiting", n, "error", err)
	}
}

// soil notes that changes of a view were not carried and will not be, and that a comparison is needed.
func (v *view) soil(ctx context.Context) error {
	if v.dirty.Load() {
		return nil
	}
	_, err := v.decides().dirt.SaveWith(ctx, v.decides().key("dirty"), dirt{v.Epoch}, state.SaveOptions{Expiry: state.Never})
	if err == nil {
		v.dirty.Store(true)
	}
	return err
}

// owe notes that a change may have been made after its view had ended, where a copy, a comparison or the draining of notes was over with
// its keys. The note is a new one: whoever has seen an earlier one may be taking it away. What has no keys, as none were noted before the
// change, is for a comparison to find, in the migration that comes next. It is written whatever has become of the caller, who is to be
// answered soon.
func (v *view) owe(ctx context.Context, in intent) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Lease/4)
	defer cancel()
	s := v.decides()
	if v.Phase == Done { // what comes next goes the other way round
		s = s.across()
	}
	if len(in.keys) > 0 {
		_, err := s.declare(ctx, in.keys)
		return err
	}
	_, err := s.dirt.SaveWith(ctx, s.key("dirty"), dirt{v.Epoch}, state.SaveOptions{Expiry: state.Never})
	return err
}

// close waits until nothing is carried any more. Its context has ended.
func (f *follower) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.done.Wait()
}
