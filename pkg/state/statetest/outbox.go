package statetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// RunOutbox checks that a driver keeps the promises of state.Outbox. open returns a driver on the data of place, as
// another process would open it; the driver is closed by the test that asked for it.
func RunOutbox(t *testing.T, newPlace func(t *testing.T) (open func(t *testing.T) state.OutboxDriver)) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, func(t *testing.T) state.OutboxDriver)
	}{
		{"added, claimed, deleted", outboxRoundTrip},
		{"outboxes are apart", outboxesAreApart},
		{"limits", outboxLimits},
		{"a claimed key is blocked for others", outboxKeyBlocks},
		{"a dead owner's claims are taken over", outboxTakeover},
		{"claims keep to their sizes", outboxClaimSizes},
		{"parked entries stand in nobody's way", outboxParked},
		{"parked entries are listed, retried, discarded", outboxUnparked},
		{"keys that wait", outboxKeys},
		{"a cancelled call adds nothing", outboxCancelled},
		{"what is there outlives the driver", outboxReopened},
		{"writers and claimers at once", outboxTogether},
		{"many at once keep to the limits", outboxManyAtOnce},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newPlace(t)) })
	}
}

func openOutbox(t *testing.T, d state.OutboxDriver, change ...func(*state.OutboxConfig)) state.Outbox {
	t.Helper()
	cfg := state.OutboxConfig{Name: "box", MaxEntries: 100_000, MaxBytes: 1 << 30}
	for _, c := range change {
		c(&cfg)
	}
	box, err := d.OpenOutbox(t.Context(), cfg)
	require.NoError(t, err)
	return box
}

func entry(key, body string) state.OutboxEntry {
	return state.OutboxEntry{Key: key, Topic: "a.topic", Properties: []byte(`{"p":1}`), Body: []byte(body)}
}

func enqueue(t *testing.T, box state.Outbox, entries ...state.OutboxEntry) {
	t.Helper()
	for _, e := range entries {
		require.NoError(t, box.Enqueue(t.Context(), e))
	}
}

// claim takes what is free for a minute.
func claim(t *testing.T, box state.Outbox, owner string) []state.OutboxEntry {
	t.Helper()
	entries, err := box.Claim(t.Context(), state.OutboxClaim{Owner: owner, Lease: time.Minute, MaxEntries: 1000, MaxBytes: 1 << 30})
	require.NoError(t, err)
	return entries
}

func bodies(entries []state.OutboxEntry) []string {
	var all []string
	for _, e := range entries {
		all = append(all, string(e.Body))
	}
	return all
}

func ids(entries []state.OutboxEntry) []int64 {
	var all []int64
	for _, e := range entries {
		all = append(all, e.ID)
	}
	return all
}

func outboxStats(t *testing.T, box state.Outbox) state.OutboxStats {
	t.Helper()
	s, err := box.Stats(t.Context())
	require.NoError(t, err)
	return s
}

func outboxRoundTrip(t *testing.T, open func(t *testing.T) state.OutboxDriver) {
	box := openOutbox(t, open(t))
	require.Zero(t, outboxStats(t, box))
	raw := state.OutboxEntry{Key: "k\u00e9 ", Topic: "t", Properties: []byte(`{"a":"\u00e9"}`), Body: []byte{0, 0xff, '\'', '\\', 0}}
	before := time.Now()
	require.NoError(t, box.Enqueue(t.Context(), raw, entry("", "second"), state.OutboxEntry{Topic: "t", Properties: []byte("{}")}))

	s := outboxStats(t, box)
	require.EqualValues(t, 3, s.Depth)
	require.Equal(t, raw.Size()+int64(len("a.topic"+`{"p":1}`+"second"))+3, s.Bytes)
	require.WithinDuration(t, before, s.Oldest, 5*time.Second)

	got := claim(t, box, "me")
	require.Len(t, got, 3)
	require.Equal(t, raw.Key, got[0].Key)
	require.Equal(t, raw.Topic, got[0].Topic)
	require.Equal(t, raw.Properties, got[0].Properties)
	require.Equal(t, raw.Body, got[0].Body, "a body comes back to the byte")
	require.Empty(t, got[2].Body)
	require.Equal(t, 1, got[0].Attempts)
	require.WithinDuration(t, before, got[0].CreatedAt, 5*time.Second)
	require.Equal(t, bodies(got), bodies(claim(t, box, "me")), "its own claims an owner may claim again")

	require.NoError(t, box.Delete(t.Context(), "other", ids(got)...))
	require.EqualValues(t, 3, outboxStats(t, box).Depth, "only an owner deletes")
	require.NoError(t, box.Delete(t.Context(), "me", ids(got)...))
	require.NoError(t, box.Delete(t.Context(), "me", ids(got)...), "again is no error")
	require.Zero(t, outboxStats(t, box))
	require.Empty(t, claim(t, box, "me"))
}

func outboxesAreApart(t *testing.T, open func(t *testing.T) state.OutboxDriver) {
	d := open(t)
	box := openOutbox(t, d)
	other := openOutbox(t, d, func(c *state.OutboxConfig) { c.Name = "Box" })
	enqueue(t, box, entry("k", "mine"))
	enqueue(t, other, entry("k", "theirs"))
	require.Equal(t, []string{"mine"}, bodies(claim(t, box, "me")))
	require.Equal(t, []string{"theirs"}, bodies(claim(t, other, "them")))
}

func outboxLimits(t *testing.T, open func(t *testing.T) state.OutboxDriver) {
	d := open(t)
	box := openOutbox(t, d, func(c *state.OutboxConfig) { c.MaxEntries = 2 })
	enqueue(t, box, entry("", "1"))
	require.ErrorIs(t, box.Enqueue(t.Context(), entry("", "2"), entry("", "3")), state.ErrFull)
	enqueue(t, box, entry("", "2"))
	require.ErrorIs(t, box.Enqueue(t.Context(), entry("", "3")), state.ErrFull)
	claimed := claim(t, box, "me")
	require.Equal(t, []string{"1", "2"}, bodies(claimed), "what did not fit was not added in part")
	require.NoError(t, box.Delete(t.Context(), "me", claimed[0].ID))
	enqueue(t, box, entry("", "3"))

	small := openOutbox(t, d, func(c *state.OutboxConfig) { c.Name, c.MaxBytes = "small", 100 })
	require.ErrorIs(t, small.Enqueue(t.Context(), entry("", string(make([]byte, 100)))), state.ErrFull)
	enqueue(t, small, entry("", string(make([]byte, 50))))
}

func outboxKeyBlocks(t *testing.T, open func(t *testing.T) state.OutboxDriver) {
	mine, theirs := openOutbox(t, open(t)), openOutbox(t, open(t))
	enqueue(t, mine, entry("a", "a1"), entry("", "x1"))
	first := claim(t, mine, "me")
	require.Equal(t, []string{"a1", "x1"}, bodies(first))
	enqueue(t, theirs, entry("a", "a2"), entry("b", "b1"), entry("", "x2"))
	require.Equal(t, []string{"b1", "x2"}, bodies(claim(t, theirs, "they")), "a2 waits behind a1")
	require.NoError(t, mine.Delete(t.Context(), "me", first[0].ID))
	require.Equal(t, []string{"b1", "a2", "x2"}, sortedAs(bodies(claim(t, theirs, "they")), "b1", "a2", "x2"))
	require.NoError(t, theirs.Release(t.Context(), "me", ids(first)...), "another owner's release does nothing to them")
	require.Equal(t, []string{"x1"}, bodies(claim(t, mine, "me")))
}

// sortedAs returns the elements in the order of the template, for claims whose order between keys does not matter.
func sortedAs(got []string, template ...string) []string {
	var sorted []string
	for _, want := range template {
		for _, g := range got {
			if g == want {
				sorted = append(sorted, g)
			}
		}
	}
	return sorted
}

func outboxTakeover(t *testing.T, open func(t *testing.T) state.OutboxDriver) {
	box := openOutbox(t, open(t))
	enqueue(t, box, entry("a", "a1"), entry("a", "a2"))
	dead, err := box.Claim(t.Context(), state.OutboxClaim{Owner: "dead", Lease: 300 * time.Millisecond, MaxEntries: 1, MaxBytes: 1 << 20})
	require.NoError(t, err)
	require.Equal(t, []string{"a1"}, bodies(dead))
	require.Empty(t, claim(t, box, "heir"), "a2 is not overtaken while a1 is claimed")
	var got []state.OutboxEntry
	require.Eventually(t, func() bool {
		got = claim(t, box, "heir")
		return len(got) > 0
	}, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, []string{"a1", "a2"}, bodies(got))
	require.Equal(t, 2, got[0].Attempts)
	require.NoError(t, box.Delete(t.Context(), "dead", ids(dead)...))
	require.EqualValues(t, 2, outboxStats(t, box).Depth, "one that comes back too late deletes nothing")
	require.NoError(t, box.Release(t.Context(), "heir", ids(got)...))
	require.Equal(t, []string{"a1", "a2"}, bodies(claim(t, box, "next")))
}

func outboxClaimSizes(t *testing.T, open func(t *testing.T) state.OutboxDriver) {
	box := openOutbox(t, open(t))
	large := string(make([]byte, 1000))
	enqueue(t, box, entry("", large), entry("", large), entry("", "small"))
	for _, c := range []struct {
		entries int
		bytes   int64
		want    int
	}{{2, 1 << 20, 2}, {10, 1500, 1}, {10, 10, 1}, {10, 1 << 20, 3}} {
		got, err := box.Claim(t.Context(), state.OutboxClaim{Owner: "me", Lease: time.Minute, MaxEntries: c.entries, MaxBytes: c.bytes})
		require.NoError(t, err)
		require.Len(t, got, c.want, "%+v", c)
	}
	for _, wrong := range []state.OutboxClaim{{}, {Owner: "me", MaxEntries: 1}, {Owner: "me", Lease: time.Second}} {
		_, err := box.Claim(t.Context(), wrong)
		require.ErrorIs(t, err, state.ErrInvalid)
	}
	require.ErrorIs(t, box.Enqueue(t.Context(), entry(string(make([]byte, 256)), "")), state.ErrInvalid)
}

func outboxParked(t *testing.T, open func(t *testing.T) state.OutboxDriver) {
	box := openOutbox(t, open(t), func(c *state.OutboxConfig) { c.MaxEntries = 2 })
	enqueue(t, box, entry("a", "poison"), entry("a", "good"))
	got := claim(t, box, "me")
	require.NoError(t, box.Park(t.Context(), "me", got[0].ID, "it is no good"))
	require.NoError(t, box.Park(t.Context(), "other", got[1].ID, "not its own"))
	s := outboxStats(t, box)
	require.EqualValues(t, 1, s.Depth)
	require.EqualValues(t, 1, s.Parked)
	enqueue(t, box, entry("", "there is room"))
	require.NoError(t, box.Release(t.Context(), "me", got[1].ID))
	require.Equal(t, []string{"good", "there is room"}, bodies(claim(t, box, "other")))
}

func outboxUnparked(t *testing.T, open func(t *testing.T) state.OutboxDriver) {
	d := open(t)
	box := openOutbox(t, d)
	other := openOutbox(t, d, func(c *state.OutboxConfig) { c.Name = "other" })
	enqueue(t, other, entry("", "theirs"))
	require.NoError(t, other.Park(t.Context(), "they", claim(t, other, "they")[0].ID, "no good"))
	enqueue(t, box, entry("a", "1"), entry("a", "2"), entry("", "3"), entry("", "4"), entry("", "waits"))
	before := outboxStats(t, box)
	all := ids(claim(t, box, "me"))
	for i, id := range all[:4] {
		require.NoError(t, box.Park(t.Context(), "me", id, fmt.Sprint("reason ", i)))
	}
	page, err := box.Parked(t.Context(), 0, 3)
	require.NoError(t, err)
	require.Len(t, page, 3)
	require.Equal(t, "reason 0", page[0].Reason)
	require.Equal(t, "1", string(page[0].Body))
	require.Equal(t, "a", page[0].Key)
	require.WithinDuration(t, time.Now(), page[0].ParkedAt, 10*time.Second)
	rest, err := box.Parked(t.Context(), page[2].ID, 3)
	require.NoError(t, err)
	require.Len(t, rest, 1)

	n, err := box.Discard(t.Context(), all[2], all[4], 4711)
	require.NoError(t, err)
	require.EqualValues(t, 1, n, "what waits is not discarded")
	n, err = box.Unpark(t.Context(), all[1], all[2], all[4])
	require.NoError(t, err)
	require.EqualValues(t, 1, n, "neither what is gone nor what waits")
	require.Equal(t, []string{"2", "waits"}, bodies(claim(t, box, "me")))
	n, err = box.Unpark(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	got := claim(t, box, "me")
	require.Equal(t, []string{"1", "2", "4", "waits"}, bodies(got), "in their old places")
	s := outboxStats(t, box)
	require.Zero(t, s.Parked)
	require.EqualValues(t, 4, s.Depth)
	three := entry("", "3")
	require.Equal(t, before.Bytes-three.Size(), s.Bytes)

	require.NoError(t, box.Park(t.Context(), "me", got[0].ID, "again"))
	n, err = box.Discard(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.EqualValues(t, 1, outboxStats(t, other).Parked, "another outbox's stay")
	require.NoError(t, box.Delete(t.Context(), "me", ids(got)...))
	require.Zero(t, outboxStats(t, box))
}

func outboxKeys(t *testing.T, open func(t *testing.T) state.OutboxDriver) {
	box := openOutbox(t, open(t))
	enqueue(t, box, entry("a", "1"), entry("a", "2"), entry("b", "3"), entry("", "4"))
	all, err := box.Keys(t.Context(), nil)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"a", "b"}, all)
	some, err := box.Keys(t.Context(), []string{"b", "c"})
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, some)
	none, err := box.Keys(t.Context(), []string{})
	require.NoError(t, err)
	require.Empty(t, none)
}

func outboxCancelled(t *testing.T, open func(t *testing.T) state.OutboxDriver) {
	box := openOutbox(t, open(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, box.Enqueue(ctx, entry("", "1")), context.Canceled)
	require.Zero(t, outboxStats(t, box))
}

func outboxReopened(t *testing.T, open func(t *testing.T) state.OutboxDriver) {
	first := open(t)
	box := openOutbox(t, first)
	enqueue(t, box, entry("k", "1"), entry("k", "2"))
	require.NoError(t, first.Close())
	require.ErrorIs(t, box.Enqueue(t.Context(), entry("k", "3")), state.ErrUnavailable)
	again := openOutbox(t, open(t))
	enqueue(t, again, entry("k", "3"))
	require.Equal(t, []string{"1", "2", "3"}, bodies(claim(t, again, "me")))
}

// Several processes add, and several claim, release and delete: each entry is deleted once, and those of one key are seen
// in the order in which its writer added them.
func outboxTogether(t *testing.T, open func(t *testing.T) state.OutboxDriver) {
	const writers, claimers, each = 3, 2, 30
	var (
		mu     sync.Mutex
		next   = map[string]int{}
		failed []error
		wait   sync.WaitGroup
	)
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		failed = append(failed, err)
	}
	ctx, done := context.WithCancel(t.Context())
	defer done()
	for w := range writers {
		box := openOutbox(t, open(t))
		wait.Go(func() {
			for i := range each {
				if err := box.Enqueue(ctx, entry(fmt.Sprintf("key-%d", w), fmt.Sprint(i))); err != nil {
					fail(err)
				}
			}
		})
	}
	for c := range claimers {
		box := openOutbox(t, open(t))
		wait.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				owner := fmt.Sprintf("claimer-%d", c)
				entries, err := box.Claim(ctx, state.OutboxClaim{Owner: owner, Lease: time.Minute, MaxEntries: 7, MaxBytes: 1 << 20})
				if errors.Is(err, context.Canceled) {
					return
				}
				if err != nil {
					fail(err)
					return
				}
				select { // sending takes its time; two that only claim would keep everybody else from a file that has one writer
				case <-time.After(3 * time.Millisecond):
				case <-ctx.Done():
				}
				if round%3 == 0 { // as one that could not send
					err = box.Release(context.WithoutCancel(ctx), owner, ids(entries)...)
				} else {
					mu.Lock()
					for _, e := range entries {
						if string(e.Body) != fmt.Sprint(next[e.Key]) {
							failed = append(failed, fmt.Errorf("key %s: %s came, and %d was next", e.Key, e.Body, next[e.Key]))
						}
						next[e.Key]++
					}
					mu.Unlock()
					err = box.Delete(context.WithoutCancel(ctx), owner, ids(entries)...)
				}
				if err != nil {
					fail(err)
				}
			}
		})
	}
	box := openOutbox(t, open(t))
	assert.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		all := len(failed) > 0
		if !all {
			all = len(next) == writers
			for _, n := range next {
				all = all && n == each
			}
		}
		return all
	}, time.Minute, 5*time.Millisecond)
	done()
	wait.Wait()
	require.NoError(t, errors.Join(failed...))
	require.Zero(t, outboxStats(t, box))
}

// Many callers add at the same time. Each learns what became of its own entries: those that are over the limit are refused,
// all or none of a call, and the others are there.
func outboxManyAtOnce(t *testing.T, open func(t *testing.T) state.OutboxDriver) {
	const callers, limit = 64, 91
	box := openOutbox(t, open(t), func(c *state.OutboxConfig) { c.MaxEntries = limit })
	ctx := t.Context()
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	var (
		mu    sync.Mutex
		added = map[string]bool{}
		wrong []error
		wait  sync.WaitGroup
	)
	for c := range callers {
		wait.Go(func() {
			first, second := fmt.Sprint(c, " first"), fmt.Sprint(c, " second")
			err := box.Enqueue(ctx, entry(fmt.Sprint(c), first), entry(fmt.Sprint(c), second))
			if gone := box.Enqueue(cancelled, entry("", "of one who is gone")); !errors.Is(gone, context.Canceled) {
				err = fmt.Errorf("a cancelled call: %w", gone)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				added[first], added[second] = true, true
			case !errors.Is(err, state.ErrFull):
				wrong = append(wrong, err)
			}
		})
	}
	wait.Wait()
	require.NoError(t, errors.Join(wrong...))
	require.Len(t, added, limit-limit%2)
	next := map[string]string{}
	for _, e := range claim(t, box, "me") {
		require.True(t, added[string(e.Body)], "%s was refused", e.Body)
		delete(added, string(e.Body))
		want := e.Key + " first"
		if next[e.Key] != "" {
			want = e.Key + " second"
		}
		require.Equal(t, want, string(e.Body))
		next[e.Key] = want
	}
	require.Empty(t, added)
}
