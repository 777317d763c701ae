package mirror

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/migrate"
)

// workers compare the keys of one store.
const workers = 2

// batch is how many keys are looked at together.
const batch = 200

// looks is how often a key that differs is looked at before it counts: it may be being written, or carried.
const looks = 4

// patience is how long after a look the next one comes.
func patience(look int) time.Duration {
	return []time.Duration{50 * time.Millisecond, 250 * time.Millisecond, time.Second}[look-1]
}

// afterFailure is how long a place that could not be read is left alone.
const afterFailure = time.Second

// lineEvery bounds the log lines about differences.
const lineEvery = time.Second

// A task is one key to look at.
type task struct {
	key   string
	carry bool // bring it to the other place first
}

// A comparer compares one store with its counterpart.
type comparer struct {
	driver *driver
	store  string
	to     Counterpart
	here   state.Engine
	tasks  chan task

	opening sync.Mutex
	there   state.Engine // nil until it could be opened

	logging sync.Mutex
	logged  time.Time
	unsaid  int // differences since then
}

// used has a share of keys compared. It never waits.
func (c *comparer) used(keys ...string) {
	for _, key := range keys {
		if c.drawn() {
			c.add(task{key: key})
		}
	}
}

// changed has a key carried, where that is wanted, and compared. It never waits.
func (c *comparer) changed(key string) {
	if c.to.Writes || c.drawn() {
		c.add(task{key: key, carry: c.to.Writes})
	}
}

func (c *comparer) drawn() bool {
	return c.to.Sample == 1 || rand.Float64() < c.to.Sample //nolint:gosec // it is a sample
}

func (c *comparer) add(t task) {
	select {
	case c.tasks <- t:
	default:
		c.count(func(of *tally) {
			of.skipped++
			if t.carry {
				of.uncarried++
			}
		})
	}
}

func (c *comparer) count(change func(t *tally)) {
	c.driver.cfg.Ledger.add(c.store, func(_ *account, t *tally) { change(t) })
}

// run compares until ctx ends.
func (c *comparer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-c.tasks:
			keys := map[string]bool{first.key: first.carry}
			c.gather(keys)
			c.look(ctx, keys)
		}
	}
}

// gather takes what waits already, each key once.
func (c *comparer) gather(keys map[string]bool) {
	for len(keys) < batch {
		select {
		case t := <-c.tasks:
			keys[t.key] = keys[t.key] || t.carry
		default:
			return
		}
	}
}

// look brings those keys to the other place that are to be, and compares all.
func (c *comparer) look(ctx context.Context, keys map[string]bool) {
	var carry []string
	for key, wanted := range keys {
		if wanted {
			carry = append(carry, key)
		}
	}
	there, err := c.other(ctx)
	if err == nil && len(carry) > 0 {
		err = c.carry(ctx, there, carry)
	}
	left := slices.Collect(maps.Keys(keys))
	if err == nil {
		left, err = c.compare(ctx, there, left)
	} else if len(carry) > 0 {
		c.count(func(t *tally) { t.uncarried += int64(len(carry)) })
	}
	if err != nil && ctx.Err() == nil {
		c.failed(ctx, len(left), err)
	}
}

// other is the other place, opened by the first who asks while it can be.
func (c *comparer) other(ctx context.Context) (state.Engine, error) {
	c.opening.Lock()
	defer c.opening.Unlock()
	if c.there != nil {
		return c.there, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.to.Timeout)
	defer cancel()
	e, err := c.to.Driver.Open(ctx, c.to.Store)
	if err != nil {
		return nil, err
	}
	c.there = e
	return e, nil
}

// carry makes keys there as they are here.
func (c *comparer) carry(ctx context.Context, there state.Engine, keys []string) error {
	ctx, cancel := context.WithTimeout(ctx, c.to.Timeout)
	defer cancel()
	refused, err := migrate.Carry(ctx, c.here, there, keys)
	if err == nil {
		c.count(func(t *tally) {
			t.carried += int64(len(keys) - len(refused))
			t.uncarried += int64(len(refused))
		})
	}
	return err
}

// compare looks at keys until they are the same, or were looked at often enough. It returns those that it came to no end with.
func (c *comparer) compare(ctx context.Context, there state.Engine, keys []string) ([]string, error) {
	seen := map[string][2]string{} // ETags in the look before
	for look, left := 1, keys; ; look++ {
		pairs, err := c.both(ctx, there, left)
		if err != nil {
			return left, err
		}
		var differ []string
		for _, p := range pairs {
			reason := p.reason
			if reason == "" {
				reason = c.to.difference(p.here, p.there)
			}
			etags := [2]string{p.here.ETag, p.there.ETag}
			switch {
			case reason == "":
				c.same()
			case look < looks:
				differ = append(differ, p.key)
			case seen[p.key] != etags:
				c.count(func(t *tally) { t.busy++ })
			default:
				c.differs(ctx, p.key, reason)
			}
			seen[p.key] = etags
		}
		if left = differ; len(left) == 0 {
			return nil, nil
		}
		if !wait(ctx, patience(look)) {
			return left, context.Cause(ctx)
		}
	}
}

// A pair is a key in both places.
type pair struct {
	key         string
	here, there state.Record
	reason      Reason // Unreadable, or found by comparing
}

// both reads keys in both places. Where one of them is no value, they are read one by one.
func (c *comparer) both(ctx context.Context, there state.Engine, keys []string) ([]pair, error) {
	ctx, cancel := context.WithTimeout(ctx, c.to.Timeout)
	defer cancel()
	here, err := c.here.Get(ctx, keys)
	var other []state.Record
	if err == nil {
		other, err = there.Get(ctx, keys)
	}
	switch {
	case err == nil:
		pairs := make([]pair, len(keys))
		for i, key := range keys {
			pairs[i] = pair{key: key, here: here[i], there: other[i]}
		}
		return pairs, nil
	case !errors.Is(err, state.ErrCorrupt):
		return nil, err
	case len(keys) == 1:
		return []pair{{key: keys[0], reason: Unreadable}}, nil
	}
	var pairs []pair
	for i := range keys {
		one, err := c.both(ctx, there, keys[i:i+1])
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, one...)
	}
	return pairs, nil
}

func (c *comparer) same() {
	c.count(func(t *tally) { t.compared++ })
	c.driver.compared.Add(c.driver.ctx, 1, c.attributes())
}

func (c *comparer) attributes(more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributes(append(more, attribute.String("store", c.store))...)
}

// differs counts and logs a difference.
func (c *comparer) differs(ctx context.Context, key string, reason Reason) {
	c.driver.cfg.Ledger.differs(c.store, key, reason)
	c.driver.compared.Add(ctx, 1, c.attributes())
	c.driver.differences.Add(ctx, 1, c.attributes(attribute.String("reason", string(reason))))
	c.logging.Lock()
	defer c.logging.Unlock()
	now := time.Now()
	if now.Sub(c.logged) < lineEvery {
		c.unsaid++
		return
	}
	c.driver.cfg.Logger.WarnContext(ctx, "a key is not the same in the store's counterpart", "store", c.store, "counterpart", c.to.Driver.Backend(),
		"keyDigest", Digest(key), "reason", string(reason), "unsaidBefore", c.unsaid)
	c.logged, c.unsaid = now, 0
}

// failed counts keys that could not be looked at, and leaves both places alone for a while. What the error says may name keys: what is kept
// and logged is its kind.
func (c *comparer) failed(ctx context.Context, keys int, err error) {
	kind := kindOf(err)
	c.driver.cfg.Ledger.add(c.store, func(a *account, t *tally) {
		t.failures += int64(keys)
		a.failure, a.failed = kind, time.Now().UTC()
	})
	c.logging.Lock()
	if now := time.Now(); now.Sub(c.logged) >= lineEvery {
		c.driver.cfg.Logger.WarnContext(ctx, "a store cannot be compared with its counterpart now; callers do not notice",
			"store", c.store, "counterpart", c.to.Driver.Backend(), "why", kind)
		c.logged = now
	}
	c.logging.Unlock()
	wait(ctx, afterFailure)
}

// kindOf says what kind of error it was, without what it names.
func kindOf(err error) string {
	for _, kind := range []error{state.ErrUnavailable, state.ErrOutcomeUnknown, context.DeadlineExceeded, state.ErrCorrupt, state.ErrInvalid,
		state.ErrUnsupported, state.ErrNoSpace, state.ErrTooLarge} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return "an error of another kind"
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
