package mirror

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/migrate"
)

// workers compare the keys of one store. One more carries changes.
const workers = 2

// batch is how many keys are looked at together.
const batch = 200

// looks is how often a key that differs, or cannot be read, is looked at before it counts: it may be being written or carried, or a place be slow.
const looks = 4

// patience is how long after a look the next one comes.
func patience(look int) time.Duration {
	return []time.Duration{50 * time.Millisecond, 250 * time.Millisecond, time.Second}[look-1]
}

// afterFailure is how long a place that could not be read is left alone.
const afterFailure = time.Second

// lineEvery bounds the log lines about differences.
const lineEvery = time.Second

// A comparer compares one store with its counterpart.
type comparer struct {
	driver *driver
	store  string
	to     Counterpart
	here   state.Engine
	looked chan string // keys to compare
	fresh  chan string // changed keys to carry

	unsent   []string // keys that were being carried when the comparing ended; only of who carries
	carrying sync.Mutex
	pending  map[string]int // how often a key is in fresh, or being carried
	refused  bool           // the last keys could not be carried, and are tried again

	opening sync.Mutex
	there   state.Engine // nil until it could be opened

	logging sync.Mutex
	logged  time.Time
	unsaid  int // differences since then
}

// used has a share of keys compared. It never waits.
func (c *comparer) used(keys ...string) {
	for _, key := range keys {
		if c.to.Sample == 1 || rand.Float64() < c.to.Sample { //nolint:gosec // it is a sample
			c.add(key)
		}
	}
}

func (c *comparer) add(key string) {
	select {
	case c.looked <- key:
	default:
		c.count(func(t *tally) { t.skipped++ })
	}
}

// changed has a key carried, where that is wanted, and then compared as others are. It never waits.
func (c *comparer) changed(key string) {
	if !c.to.Writes {
		c.used(key)
		return
	}
	c.await(key, 1)
	select {
	case c.fresh <- key:
	default:
		c.await(key, -1)
		c.uncarried(1)
	}
}

// await counts how often a key is still to be carried.
func (c *comparer) await(key string, n int) {
	c.carrying.Lock()
	defer c.carrying.Unlock()
	if c.pending[key] += n; c.pending[key] == 0 {
		delete(c.pending, key)
	}
}

func (c *comparer) awaited(key string) bool {
	c.carrying.Lock()
	defer c.carrying.Unlock()
	return c.pending[key] > 0
}

// behind is how many keys wait to be carried, where they wait for more than their turn: the other place did not take the last ones, or more wait
// than are carried together.
func (c *comparer) behind() int {
	c.carrying.Lock()
	defer c.carrying.Unlock()
	if !c.refused && len(c.pending) <= batch {
		return 0
	}
	return len(c.pending)
}

func (c *comparer) waiting() int { return len(c.looked) + len(c.fresh) }

func (c *comparer) count(change func(t *tally)) {
	c.driver.cfg.Ledger.add(c.store, func(_ *account, t *tally) { change(t) })
}

// uncarried counts keys that the other place has older values of until they are changed again.
func (c *comparer) uncarried(keys int) {
	c.driver.cfg.Ledger.add(c.store, func(a *account, _ *tally) { a.uncarried += int64(keys) })
}

// run does something with the keys of a queue, some together, until ctx ends.
func (c *comparer) run(ctx context.Context, queue <-chan string, do func(ctx context.Context, keys []string)) {
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-queue:
			do(ctx, gather(first, queue))
		}
	}
}

// gather takes what waits already.
func gather(first string, queue <-chan string) []string {
	keys := []string{first}
	for len(keys) < batch {
		select {
		case key := <-queue:
			keys = append(keys, key)
		default:
			return keys
		}
	}
	return keys
}

// once is each key once, in order.
func once(keys []string) []string {
	keys = slices.Clone(keys)
	slices.Sort(keys)
	return slices.Compact(keys)
}

// bring carries keys, however long the other place is away, and has them compared.
func (c *comparer) bring(ctx context.Context, keys []string) {
	distinct := once(keys)
	for {
		err := c.carry(ctx, distinct)
		c.carrying.Lock()
		c.refused = err != nil
		c.carrying.Unlock()
		if err == nil {
			break
		}
		if c.failed(ctx, 0, err); ctx.Err() != nil {
			c.unsent = append(c.unsent, distinct...) // it may be asked once more when it has ended
			return
		}
	}
	for _, key := range keys {
		c.await(key, -1)
	}
	c.used(distinct...)
}

// rest carries what waits when the comparing ends, as long as one call may take.
func (c *comparer) rest(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.to.Timeout)
	defer cancel()
	for {
		if len(c.unsent) == 0 {
			select {
			case first := <-c.fresh:
				c.unsent = once(gather(first, c.fresh))
			default:
				return
			}
		}
		if err := c.carry(ctx, c.unsent); err != nil {
			c.driver.cfg.Logger.WarnContext(ctx, "changes were not carried to the store's counterpart, which has older values of some keys now",
				"store", c.store, "counterpart", c.to.Driver.Backend(), "changes", len(c.unsent)+len(c.fresh), "why", kindOf(err))
			return
		}
		c.unsent = nil
	}
}

// look compares keys. A place that does not answer is asked as often as one whose key differs.
func (c *comparer) look(ctx context.Context, keys []string) {
	keys = once(keys)
	for look := 1; ; look++ {
		there, err := c.other(ctx)
		if err == nil {
			keys, err = c.compare(ctx, there, keys)
		}
		if err == nil {
			return
		}
		if look == looks || !wait(ctx, patience(look)) {
			c.failed(ctx, len(keys), err)
			return
		}
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
func (c *comparer) carry(ctx context.Context, keys []string) error {
	there, err := c.other(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.to.Timeout)
	defer cancel()
	refused, err := migrate.Carry(ctx, c.here, there, keys)
	if err == nil {
		c.count(func(t *tally) { t.carried += int64(len(keys) - len(refused)) })
		c.uncarried(len(refused))
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
			case seen[p.key] != etags || c.awaited(p.key):
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
	if ctx.Err() != nil { // it is the end
		return
	}
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
