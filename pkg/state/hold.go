package state

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Token is greater than that of every hold before this one, also when the lock expired or was released. When somebody has deleted the keys
// of the lock, it is so if the clocks of the processes are in step: it begins anew at the acquiring process' microseconds since 1970.
func (h *Hold) Token() int64 { return h.token }

// Context is the context of the work that the lock is for. It has the values of the context that the lock was acquired with, but not its
// end. It ends when the lock is released, or lost: then its cause (context.Cause) wraps ErrLockLost. That is at the latest TTL after the
// last renewal that succeeded was sent, by this process' clock.
func (h *Hold) Context() context.Context { return h.ctx }

// Release gives the lock up and ends the renewing. When it returns an error the lock may be held until its time ends; ErrLockLost means
// that it was no longer held. Releasing twice does no harm.
func (h *Hold) Release(ctx context.Context) error {
	h.stop()
	select {
	case <-h.done:
	case <-ctx.Done():
		return h.lock.error(context.Cause(ctx))
	}
	if err := h.enter(ctx); err != nil {
		return err
	}
	defer h.leave()
	switch cause := context.Cause(h.ctx); { //nolint:contextcheck // whether the hold has ended, not the call
	case errors.Is(cause, errReleased):
		return nil
	case cause != nil:
		return cause
	}
	err := h.ifHeld(ctx, func() (held bool, err error) {
		c := Change{Key: h.lock.lease, Delete: true, When: IfETag, ETag: h.etag}
		o, err := h.change(ctx, opTryDelete, c)
		return !o.Conflict, err
	})
	h.expire.Stop()
	h.cancel(errReleased) // unless it was lost
	return err
}

// TransactHeld is Transact on condition that the lock is still held: if it is not, nothing is changed and the error wraps ErrLockLost. The
// check is made by the engine in one step with the changes, so that a holder that was stopped beyond its time cannot write, whatever it
// believes. The lock is renewed by it.
//
// The lock must be one of this store; on Redis its name must share the hash tag of the keys, such as "{order-7}" for "{order-7}:lines". At
// most 999 changes. The transactions of one hold are made one after another.
func (s *Store[T]) TransactHeld(ctx context.Context, h *Hold, ops []Op[T]) ([]Result, error) {
	keys := make([]string, len(ops), len(ops)+1)
	for i := range ops {
		keys[i] = ops[i].Key
	}
	var results []Result
	err := s.store.many(ctx, opTransact, append(keys, h.lock.lease), func() (err error) {
		if h.lock.store != s.store {
			return s.store.storeError(fmt.Errorf("%w: the lock %q is one of the store %q", ErrInvalid, h.lock.name, h.lock.store.cfg.Name))
		}
		changes := make([]Change, len(ops), len(ops)+1)
		for i := range ops {
			if changes[i], err = ops[i].change(s.store); err != nil {
				return err
			}
		}
		results, err = h.transact(ctx, changes)
		return err
	})
	return results, err
}

func (h *Hold) transact(ctx context.Context, changes []Change) (results []Result, err error) {
	if err := h.enter(ctx); err != nil {
		return nil, err
	}
	defer h.leave()
	if cause := context.Cause(h.ctx); cause != nil { //nolint:contextcheck // whether the hold has ended, not the call
		return nil, cause
	}
	err = h.ifHeld(ctx, func() (held bool, err error) {
		begun := time.Now()
		all := append(changes[:len(changes):len(changes)], h.extension())
		results, err = h.lock.store.transact(ctx, all, len(changes))
		var conflict *ConflictError
		if errors.As(err, &conflict) && conflict.Keys[len(conflict.Keys)-1] == h.lock.lease {
			return false, nil
		}
		if err == nil {
			h.extended(begun, results[len(changes)].ETag)
			results = results[:len(changes)]
		}
		return true, err
	})
	return results, err
}

// begin gives the hold to its holder: from now on it is renewed.
func (h *Hold) begin(ctx context.Context) {
	h.ctx, h.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	h.expire = time.AfterFunc(time.Until(h.renewed.Add(h.lock.options.TTL)), func() {
		_ = h.lose("it could not be renewed in time")
	})
	var renewing context.Context
	renewing, h.stop = context.WithCancel(h.ctx)
	h.done = make(chan struct{})
	go h.keep(renewing) //nolint:contextcheck // it outlives the call that acquired the lock
}

// leastAttempt is how long a renewal may take at least: what is merely busy answers within it.
const leastAttempt = time.Second

// keep renews until ctx ends: by Release, or by the loss of the lock. Each renewal has a third of TTL, so that one which hangs, as a
// connection may have died without a word, leaves time for another.
func (h *Hold) keep(ctx context.Context) {
	defer close(h.done)
	ttl := h.lock.options.TTL
	pause := ttl / 3
	for wait(ctx, pause) {
		if h.enter(ctx) != nil {
			return
		}
		var err error
		if time.Since(h.renewed) >= ttl/4 { // or a transaction has renewed it meanwhile
			attempt, cancel := context.WithTimeout(ctx, max(ttl/3, leastAttempt))
			err = h.renew(attempt)
			cancel()
		}
		pause = max(ttl/3-time.Since(h.renewed), 0)
		if err != nil {
			pause = ttl / 20 // the store is away: there is time for some more tries
		}
		h.leave()
	}
}

// renew extends the lease by one TTL from now. Its caller has the turn, or is alone.
func (h *Hold) renew(ctx context.Context) error {
	return h.ifHeld(ctx, func() (held bool, err error) {
		begun := time.Now()
		o, err := h.change(ctx, opTrySave, h.extension())
		if err == nil && o.Done {
			h.extended(begun, o.ETag)
		}
		return !o.Conflict, err
	})
}

// extension is the change that renews the lease.
func (h *Hold) extension() Change {
	value := fmt.Appendf(nil, `{"holder":%q,"token":%d}`, h.holder, h.token)
	return Change{Key: h.lock.lease, Value: value, Expiry: After(h.lock.options.TTL), When: IfETag, ETag: h.etag}
}

// extended enters that the lease was extended by a change that began then.
func (h *Hold) extended(begun time.Time, etag string) {
	h.etag, h.renewed = etag, begun
	if h.expire != nil {
		h.expire.Reset(time.Until(begun.Add(h.lock.options.TTL)))
	}
}

// ifHeld makes a change that is on condition of the lease's ETag. When the condition does not hold it looks why: a renewal whose outcome
// was unknown may have been made later, and then the lease is still this hold's.
func (h *Hold) ifHeld(ctx context.Context, change func() (held bool, err error)) error {
	const tries = 4 // each but the first after one more write that came late
	for range tries {
		held, err := change()
		if held || err != nil {
			return err
		}
		records, err := h.lock.read(ctx, h.lock.lease)
		if err != nil {
			return err
		}
		var value leaseValue
		if lease := records[0]; lease.Found {
			if err := h.lock.decode(lease, &value); err != nil {
				return err
			}
			h.etag = lease.ETag
		}
		if value.Holder != h.holder {
			return h.lose("another has it, or its key was deleted or has expired")
		}
	}
	return h.lock.error(fmt.Errorf("%w: it was changed %d times meanwhile", ErrUnavailable, tries))
}

// change makes one change of the lease.
func (h *Hold) change(ctx context.Context, op operation, c Change) (o Outcome, err error) {
	err = h.lock.store.recorder.record(ctx, op, c.Key, func() error {
		outcomes, err := h.lock.store.engine.Apply(ctx, []Change{c})
		if err == nil {
			o, err = outcomes[0], outcomes[0].Err
		}
		return err
	})
	return o, err
}

// lose tells the holder that the lock is lost.
func (h *Hold) lose(why string) error {
	err := h.lock.error(fmt.Errorf("%w: %s", ErrLockLost, why))
	if h.cancel != nil {
		h.cancel(err)
	}
	return err
}

// enter takes the turn to write the lease.
func (h *Hold) enter(ctx context.Context) error {
	select {
	case h.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return h.lock.error(context.Cause(ctx))
	}
}

func (h *Hold) leave() { <-h.turn }
