package statetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// HistoryOptions are the size of a history. The zero value takes a second or two.
type HistoryOptions struct {
	// Seed decides what the clients call. Default: drawn. It is logged; the order in which calls meet is the machine's.
	Seed uint64

	// Calls is how many calls each of eight clients makes. Default: 300.
	Calls int

	// ExpiryAtBegin is the driver's Features.ExpiryAtBegin.
	ExpiryAtBegin bool

	// WholeSeconds is the driver's Features.WholeSeconds.
	WholeSeconds bool

	// Harm is done to the server while the clients go on, once they have made half of their calls. They make at least the other half
	// after it. Calls that did not reach the server are no part of the history; those whose outcome is unknown may have been made at any
	// time after, or never. Nil: no harm.
	Harm func(ctx context.Context) error
}

// Histories has concurrent clients call a store of the driver, and checks that for each key there is one order of all calls that explains
// what every client was told: values, ETags, versions and expiries, through get, save, delete, exists, their conditional and bulk forms
// and transactions.
func Histories(t *testing.T, d state.Driver, o HistoryOptions) {
	t.Helper()
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	t.Logf("seed %d", o.Seed)
	name := newName()
	store, err := state.Open[int64](t.Context(), factory(t, d, state.Options{}, state.StoreConfig{Name: name}), name)
	require.NoError(t, err)
	// The JSON library learns the type from one client. With SQLite unwatched the race detector does not see that it hands on safely what it learnt.
	mustSave(t, store, "first", 0)
	_, err = store.Get(t.Context(), "first")
	require.NoError(t, err)
	h := record(t.Context(), store, o)
	t.Logf("%d calls recorded, %d of them with an unknown outcome; %d were refused", len(h.calls), h.unknown(), h.refused)
	require.NoError(t, h.failure)
	require.NoError(t, h.check())
}

// Clients that call at once find what no sequence of calls by one client does: a reader that sees a change and then does not, a condition
// that was checked before another's change and used after it, an expiry that one method sees and another does not.
func historiesAreLinear(t *testing.T, s *suite) {
	s.needs(t, OneLine, Versions, ExpiryTold, Milliseconds, ToldETags, Conditions)
	Histories(t, s.driver, HistoryOptions{ExpiryAtBegin: s.features.ExpiryAtBegin, WholeSeconds: s.features.WholeSeconds})
}

const (
	historyClients = 8
	historyKeys    = 6
	historyTTL     = 15 * time.Millisecond // long enough to be seen, short enough to pass many times
	// historyHot is how many of the keys are called most of the time. The others are mostly read, and have time to expire.
	historyHot = 3
	// historyPatience bounds a call. It is answered long before, unless the server is harmed.
	historyPatience = 2 * time.Second
)

// A call is what one client asked of one key and what it was told.
type call struct {
	client int
	key    int
	asked  string // the name of the method
	value  int64  // to save; no two saves have the same
	etag   string // the condition of try-save and try-delete; empty in a try-save: only if absent
	ttl    state.Expiry
	rounds time.Duration // how much later the value may expire than it was to

	begin, end time.Duration // since the history began; an unknown outcome has no end

	unknown  bool
	conflict bool          // the condition did not hold
	found    bool          // by get and exists; the key was there, for delete
	seen     int64         // by get
	version  int64         // by get, of save
	newETag  string        // by get, of save
	expires  time.Duration // by get; 0: never
}

func (c *call) reads() bool       { return c.asked == "get" || c.asked == "exists" }
func (c *call) deletes() bool     { return c.asked == "delete" || c.asked == "try-delete" }
func (c *call) conditional() bool { return strings.HasPrefix(c.asked, "try-") }

func (c *call) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%.3f, ", float64(c.begin.Microseconds())/1000)
	if c.unknown {
		b.WriteString("?")
	} else {
		fmt.Fprintf(&b, "%.3f", float64(c.end.Microseconds())/1000)
	}
	fmt.Fprintf(&b, "] ms, client %d: %s", c.client, c.asked)
	if !c.reads() && !c.deletes() {
		fmt.Fprintf(&b, " %d, expiry %s", c.value, c.ttl)
	}
	if c.conditional() {
		fmt.Fprintf(&b, ", if %q", c.etag)
	}
	switch {
	case c.unknown:
		b.WriteString(": unknown")
	case c.conflict:
		b.WriteString(": conflict")
	case c.asked == "get" && c.found:
		fmt.Fprintf(&b, ": %d, ETag %q, version %d, expires %.3f", c.seen, c.newETag, c.version, float64(c.expires.Microseconds())/1000)
	case c.reads() || c.deletes():
		fmt.Fprintf(&b, ": %t", c.found)
	default:
		fmt.Fprintf(&b, ": ETag %q, version %d", c.newETag, c.version)
	}
	return b.String()
}

// A history is all calls of all clients.
type history struct {
	seed  uint64
	store *state.Store[int64]
	begun time.Time

	expiryAtBegin bool
	rounds        time.Duration // how much later than asked values may expire

	saves atomic.Int64 // the last value

	mu      sync.Mutex
	calls   []*call
	refused int   // calls that did not reach the server
	failure error // an error that no call may give
}

func (h *history) unknown() int {
	n := 0
	for _, c := range h.calls {
		if c.unknown {
			n++
		}
	}
	return n
}

// record has the clients call, and returns when all of them have made their calls and the harm is over.
func record(ctx context.Context, store *state.Store[int64], o HistoryOptions) *history {
	h := &history{seed: o.Seed, store: store, begun: time.Now(), expiryAtBegin: o.ExpiryAtBegin}
	if o.WholeSeconds {
		h.rounds = time.Second
	}
	calls := o.Calls
	if calls == 0 {
		calls = 300
	}
	half, harmed := make(chan struct{}), make(chan struct{})
	reached := sync.OnceFunc(func() { close(half) })
	var clients sync.WaitGroup
	for n := range historyClients {
		clients.Go(func() {
			c := &client{history: h, number: n, random: rand.New(rand.NewPCG(o.Seed, uint64(n))), etags: make([][]string, historyKeys)}
			c.run(ctx, calls/2)
			reached()
			for !ended(harmed) && ctx.Err() == nil {
				c.run(ctx, 1)
			}
			c.run(ctx, calls-calls/2)
		})
	}
	<-half
	if o.Harm != nil {
		if err := o.Harm(ctx); err != nil {
			h.fail(fmt.Errorf("the harm: %w", err))
		}
	}
	close(harmed)
	clients.Wait()
	return h
}

func ended(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (h *history) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failure == nil {
		h.failure = err
	}
}

// A client makes one call after another.
type client struct {
	history *history
	number  int
	random  *rand.Rand
	etags   [][]string // those it has seen, by key, the newest last
}

func (c *client) run(ctx context.Context, calls int) {
	for i := 0; i < calls && ctx.Err() == nil; i++ {
		if c.random.IntN(10) == 0 { // or keys would never expire
			pause(ctx, time.Duration(c.random.Int64N(int64(2*historyTTL))))
		}
		c.call(ctx)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// call makes one random call, on one key or on two.
func (c *client) call(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, historyPatience)
	defer cancel()
	key := c.random.IntN(historyHot)
	if c.random.IntN(4) == 0 {
		key = historyHot + c.random.IntN(historyKeys-historyHot)
	}
	first := c.draw(key)
	calls := []*call{first}
	if c.random.IntN(8) == 0 {
		calls = append(calls, c.draw((first.key+1+c.random.IntN(historyKeys-1))%historyKeys))
		for _, other := range calls[1:] { // of the same kind
			for other.reads() != first.reads() || first.reads() && other.asked != first.asked {
				*other = *c.draw(other.key)
			}
		}
	}
	begin := time.Since(c.history.begun)
	for _, each := range calls {
		each.begin = begin
	}
	var err error
	if len(calls) == 1 {
		err = c.one(ctx, first)
	} else {
		err = c.several(ctx, calls)
	}
	c.enter(ctx, calls, err)
}

// draw decides what to ask of a key.
func (c *client) draw(key int) *call {
	drawn := &call{client: c.number, key: key}
	roll := c.random.IntN(100)
	if key >= historyHot && c.random.IntN(4) > 0 {
		roll %= 36 // a read
	}
	for _, a := range []struct {
		asked string
		until int
	}{{"get", 28}, {"exists", 36}, {"save", 50}, {"try-save", 82}, {"delete", 88}, {"try-delete", 100}} {
		if roll < a.until {
			drawn.asked = a.asked
			break
		}
	}
	if !drawn.reads() && !drawn.deletes() {
		drawn.value = c.history.saves.Add(1)
		drawn.ttl = []state.Expiry{state.Keep, state.Never, state.After(historyTTL), state.After(time.Hour)}[c.random.IntN(4)]
		drawn.rounds = c.history.rounds
	}
	if seen := c.etags[key]; drawn.conditional() && len(seen) > 0 && (drawn.deletes() || c.random.IntN(3) > 0) {
		drawn.etag = seen[len(seen)-1]
		if c.random.IntN(8) == 0 {
			drawn.etag = seen[c.random.IntN(len(seen))]
		}
	} else if drawn.asked == "try-delete" {
		drawn.asked = "delete" // there is no ETag to ask for
	}
	return drawn
}

func (c *call) name() string { return fmt.Sprintf("{h}%d", c.key) }

// one makes a call of one key.
func (c *client) one(ctx context.Context, a *call) (err error) {
	store, options := c.history.store, state.SaveOptions{Expiry: a.ttl}
	var saved state.Saved
	switch a.asked {
	case "get":
		var entry state.Entry[int64]
		if entry, err = store.GetWithETag(ctx, a.name()); errors.Is(err, state.ErrNotFound) {
			err = nil
		}
		c.got(a, entry)
	case "exists":
		a.found, err = store.Exists(ctx, a.name())
	case "save":
		saved, err = store.SaveWith(ctx, a.name(), a.value, options)
	case "try-save":
		saved, err = store.TrySaveWith(ctx, a.name(), a.value, a.etag, options)
	case "delete":
		a.found, err = store.Delete(ctx, a.name())
	case "try-delete":
		err = store.TryDelete(ctx, a.name(), a.etag)
		a.found = !errors.Is(err, state.ErrNotFound)
		if !a.found {
			err = nil
		}
	}
	if saved.ETag != "" {
		a.newETag, a.version = saved.ETag, saved.Version
	}
	if errors.Is(err, state.ErrConflict) {
		a.conflict, err = true, nil
	}
	return err
}

func (c *client) got(a *call, e state.Entry[int64]) {
	a.found, a.seen, a.newETag, a.version = e.Found, e.Value, e.ETag, e.Version
	if !e.ExpiresAt.IsZero() {
		a.expires = e.ExpiresAt.Sub(c.history.begun)
	}
}

// several makes calls of different keys as one: a bulk call of reads, or a transaction.
func (c *client) several(ctx context.Context, calls []*call) error {
	store := c.history.store
	keys := make([]string, len(calls))
	for i, a := range calls {
		keys[i] = a.name()
	}
	switch calls[0].asked {
	case "get":
		entries, err := store.GetBulk(ctx, keys)
		for i, e := range entries {
			c.got(calls[i], e)
		}
		return err
	case "exists":
		found, err := store.ExistsBulk(ctx, keys)
		for i, f := range found {
			calls[i].found = f
		}
		return err
	}
	ops := make([]state.Op[int64], len(calls))
	for i, a := range calls {
		ops[i] = state.Op[int64]{Key: keys[i], Delete: a.deletes(), Value: a.value, Expiry: a.ttl}
		if a.conditional() {
			ops[i].ETag = &a.etag
		}
	}
	results, err := store.Transact(ctx, ops)
	var conflict *state.ConflictError
	if errors.As(err, &conflict) {
		for i, a := range calls {
			// Of the others it is said that nothing was changed, and nothing else.
			a.conflict = slices.Contains(conflict.Keys, keys[i])
		}
		return err
	}
	for i, r := range results {
		calls[i].found, calls[i].newETag, calls[i].version = r.Done, r.ETag, r.Version
	}
	return err
}

// enter adds calls to the history, with what their error says.
func (c *client) enter(ctx context.Context, calls []*call, err error) {
	h := c.history
	end := time.Since(h.begun)
	conflict := errors.Is(err, state.ErrConflict)
	refused := errors.Is(err, state.ErrUnavailable) && !errors.Is(err, state.ErrOutcomeUnknown)
	unknown := errors.Is(err, state.ErrOutcomeUnknown)
	if err != nil && !conflict && !refused && !unknown {
		h.fail(fmt.Errorf("%s: %w", calls[0], err))
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range calls {
		a.end = end
		switch {
		case refused:
			h.refused++
			continue
		case conflict && !a.conflict: // one of a transaction that another undid
			continue
		case unknown:
			a.unknown, a.end = true, math.MaxInt64
		}
		if a.newETag != "" {
			c.etags[a.key] = append(c.etags[a.key], a.newETag)
		}
		h.calls = append(h.calls, a)
	}
	if refused {
		h.mu.Unlock()
		pause(ctx, 10*time.Millisecond)
		h.mu.Lock()
	}
}
