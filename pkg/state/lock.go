package state

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// LockOptions are the times of a Lock.
type LockOptions struct {
	// TTL is how long a holder that says nothing more keeps the lock. A third of it after the last renewal the holder renews. Default:
	// 15 s. At least 50 ms.
	TTL time.Duration

	// Poll is how often a waiter looks whether the lock is free, and so how long after that it gets it, at most. Default: a tenth of TTL,
	// between 10 ms and 250 ms.
	Poll time.Duration
}

// A Lock is held by one holder at a time among all processes that use the store. It is safe for concurrent use and has no goroutines; those
// who wait for the same *Lock wait in line, and one of them polls the store.
//
// The engine's clock decides when a lock that is not renewed is free, so the processes' clocks need not agree. A holder that was stopped
// for longer than TTL may believe that it holds the lock while another does. Its writes are made to fail in one of two ways:
//
//   - Store.TransactHeld changes keys of the lock's own store only while the lock is held, in one step with the check.
//   - Hold.Token is a number that is greater for each holder than for all before it. What is written elsewhere carries the token, and is
//     refused there when it carries a smaller one than was seen before.
//
// The lock is two keys of its store, "{name}:lock", which expires, and "{name}:lock-token", which does not. Where name has a hash tag
// itself, a part in braces, they are name + ":lock" and name + ":lock-token". Changes of them are not told to Options.OnChange.
//
// A lock is as durable as its store: a Redis that fails over may forget who holds it.
type Lock struct {
	store   *store
	name    string
	lease   string // the key that the holder renews
	counter string // the key of the last token
	options LockOptions
	turn    chan struct{} // held by who polls
}

// A Hold is a lock that was acquired. It owns a goroutine that renews it until Release, or until the lock is lost. It is safe for
// concurrent use.
type Hold struct {
	lock   *Lock
	holder string // names this hold, and no other ever
	token  int64

	ctx    context.Context //nolint:containedctx // it is what the holder is given: it ends when the lock does
	cancel context.CancelCauseFunc
	expire *time.Timer // cancels ctx when the lock was not renewed in time, whatever the engine does
	stop   context.CancelFunc
	done   chan struct{} // closed when the renewing goroutine has ended

	turn    chan struct{} // held by who writes the lease; guards what follows
	etag    string
	renewed time.Time // when the last renewal that succeeded began
}

// leaseValue is what stands under the lease's key.
type leaseValue struct {
	Holder string `json:"holder"`
	Token  int64  `json:"token"`
}

// counterValue is what stands under the counter's key.
type counterValue struct {
	Token int64 `json:"token"`
}

// errReleased is the cause of a hold's context after Release.
var errReleased = fmt.Errorf("the lock was released: %w", context.Canceled)

// OpenLock returns the lock of that name in the named store. The name is a key; what is appended to it must leave it within 255 bytes.
// Locks of one name and store exclude each other in all processes, and should have the same TTL.
func OpenLock(ctx context.Context, f *Factory, storeName, name string, o LockOptions) (*Lock, error) {
	s, err := f.open(ctx, storeName)
	if err != nil {
		return nil, err
	}
	if o.TTL == 0 {
		o.TTL = 15 * time.Second
	}
	if o.Poll == 0 {
		o.Poll = min(max(o.TTL/10, 10*time.Millisecond), 250*time.Millisecond)
	}
	base := name
	if !hasHashTag(name) {
		base = "{" + name + "}"
	}
	l := &Lock{store: s, name: name, lease: base + ":lock", counter: base + ":lock-token", options: o, turn: make(chan struct{}, 1)}
	if name == "" {
		return nil, s.storeError(fmt.Errorf("%w: the lock has no name", ErrInvalid))
	}
	if err := checkKey(l.counter); err != nil {
		return nil, l.error(err)
	}
	if o.TTL < 50*time.Millisecond || After(o.TTL) > maxExpiry || o.Poll < 0 {
		return nil, l.error(fmt.Errorf("%w: the TTL must lie between 50 ms and 100 years, and Poll must not be negative", ErrInvalid))
	}
	return l, nil
}

// hasHashTag reports whether a part in braces, the first, decides where Redis keeps a key.
func hasHashTag(key string) bool {
	_, after, opened := strings.Cut(key, "{")
	tag, _, closed := strings.Cut(after, "}")
	return opened && closed && tag != ""
}

// Acquire waits until the lock is free and takes it. When ctx ends first the error wraps the context's cause, and ErrLocked if another was
// seen to hold the lock; the end of ctx after Acquire has returned does not end the hold. Errors of the store are returned at once. Of several that wait in different processes,
// any may be next; a waiter gets a lock that nobody else wants at most LockOptions.Poll, and a round trip, after it was released or its
// holder's time ended.
func (l *Lock) Acquire(ctx context.Context) (*Hold, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, l.error(fmt.Errorf("%w: %w", ErrLocked, context.Cause(ctx)))
	}
	holder := rand.Text()
	for locked := false; ; locked = true {
		h, free, err := l.try(ctx, holder)
		if err != nil && locked && ctx.Err() != nil { // the time was over while the store was asked once more
			return nil, l.error(fmt.Errorf("%w: %w: %w", ErrLocked, context.Cause(ctx), err))
		}
		if h != nil || err != nil {
			return h, err
		}
		// The engine's clock may be behind ours: then free has passed, and the lock is not free yet.
		poll := l.options.Poll - time.Duration(mathrand.Int64N(int64(l.options.Poll/8)+1)) //nolint:gosec // spreads waiters, guards nothing
		if !wait(ctx, min(max(time.Until(free), l.options.Poll/10), poll)) {
			return nil, l.error(fmt.Errorf("%w: %w", ErrLocked, context.Cause(ctx)))
		}
	}
}

// TryAcquire takes the lock if it is free, and returns ErrLocked if it is not.
func (l *Lock) TryAcquire(ctx context.Context) (*Hold, error) {
	h, free, err := l.try(ctx, rand.Text())
	if h == nil && err == nil {
		err = l.error(fmt.Errorf("%w until %s, if it is not renewed", ErrLocked, free.UTC().Format(time.RFC3339Nano)))
	}
	return h, err
}

// wait returns false when ctx ends before d has passed.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// try takes the lock, or returns when it will be free if its holder does not renew it.
func (l *Lock) try(ctx context.Context, holder string) (_ *Hold, free time.Time, err error) {
	for {
		records, err := l.read(ctx, l.lease, l.counter)
		if err != nil {
			return nil, time.Time{}, err
		}
		lease, counter := records[0], records[1]
		if lease.Found {
			h, err := l.adopt(ctx, lease, holder)
			return h, lease.ExpiresAt, err
		}
		h, err := l.take(ctx, counter, holder)
		switch {
		case errors.Is(err, ErrOutcomeUnknown): // look whether it is ours
		case h != nil || err != nil:
			return h, time.Time{}, err
		}
		if ctx.Err() != nil {
			return nil, time.Time{}, l.error(errors.Join(err, context.Cause(ctx)))
		}
	}
}

// take makes the lease and the next token, or neither. Nil: somebody else was faster.
func (l *Lock) take(ctx context.Context, counter Record, holder string) (*Hold, error) {
	h := &Hold{lock: l, holder: holder, renewed: time.Now(), turn: make(chan struct{}, 1)}
	// A counter that somebody deleted begins anew with a number that no counter can have reached: it would have had to be counted up more
	// than once a microsecond.
	token := time.Now().UnixMicro()
	next := Change{Key: l.counter, When: IfAbsent, Expiry: Never}
	if counter.Found {
		var last counterValue
		if err := l.decode(counter, &last); err != nil {
			return nil, err
		}
		token = last.Token + 1
		next.When, next.ETag = IfETag, counter.ETag
	}
	h.token = token
	var err error
	if next.Value, err = encode(counterValue{Token: token}); err != nil {
		return nil, l.error(err)
	}
	lease := h.extension()
	lease.When, lease.ETag = IfAbsent, ""
	var outcomes []Outcome
	err = l.store.recorder.record(ctx, opTransact, l.lease, func() (err error) {
		outcomes, err = l.store.engine.Transact(ctx, []Change{lease, next})
		return err
	})
	if err != nil || outcomes[0].Conflict || outcomes[1].Conflict {
		return nil, err
	}
	h.etag = outcomes[0].ETag
	h.begin(ctx)
	return h, nil
}

// adopt takes over a lease that this holder made without hearing of it. Nil: it is another's.
func (l *Lock) adopt(ctx context.Context, lease Record, holder string) (*Hold, error) {
	var value leaseValue
	if err := l.decode(lease, &value); err != nil || value.Holder != holder {
		return nil, err
	}
	h := &Hold{lock: l, holder: holder, token: value.Token, etag: lease.ETag, turn: make(chan struct{}, 1)}
	if err := h.renew(ctx); errors.Is(err, ErrLockLost) {
		return nil, nil // it has expired meanwhile
	} else if err != nil {
		return nil, err
	}
	h.begin(ctx)
	return h, nil
}

func (l *Lock) read(ctx context.Context, keys ...string) (records []Record, err error) {
	err = l.store.recorder.record(ctx, opGetBulk, l.lease, func() (err error) {
		if err = ctx.Err(); err != nil {
			return l.error(err)
		}
		records, err = l.store.engine.Get(ctx, keys)
		return err
	})
	return records, err
}

func (l *Lock) decode(r Record, into any) error {
	if err := json.Unmarshal(r.Value, into); err != nil {
		return l.store.keyError(r.Key, fmt.Errorf("%w: %w", ErrCorrupt, err))
	}
	return nil
}

func (l *Lock) error(err error) error {
	return fmt.Errorf("state: store %q: lock %q: %w", l.store.cfg.Name, l.name, err)
}
