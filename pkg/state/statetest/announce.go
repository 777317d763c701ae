package statetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// RunAnnounced checks that a driver keeps the promises of state.Announcer. open returns a driver on the data of place, as
// another process would open it; the driver is closed by the test that asked for it.
func RunAnnounced(t *testing.T, newPlace func(t *testing.T) (open func(t *testing.T) state.Announcer)) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, func(t *testing.T) state.Announcer)
	}{
		{"every change has its entry", announcedChanges},
		{"who announces nothing adds nothing", announcedSilent},
		{"a lock is not announced", announcedLock},
		{"what does not fit is not changed", announcedLimits},
		{"many at once keep to the limits", announcedManyAtOnce},
		{"what cannot be announced is not changed", announcedRefused},
		{"outboxes are apart", announcedApart},
		{"a cancelled call adds nothing", announcedCancelled},
		{"entries are a log of the changes", announcedLog},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newPlace(t)) })
	}
}

// announcing returns a factory that announces, with a store that does and one that does not.
func announcing(t *testing.T, d state.Driver, change ...func(*state.Announce)) (told, silent *state.Store[int]) {
	t.Helper()
	a := &state.Announce{
		Outbox: state.OutboxConfig{Name: "changes", MaxEntries: 1 << 20, MaxBytes: 1 << 30},
		Entry: func(_ context.Context, c state.Changed) (state.OutboxEntry, error) {
			body, err := json.Marshal(c)
			return state.OutboxEntry{Key: c.Key, Topic: "changed", Properties: []byte("{}"), Body: body}, err
		},
	}
	for _, c := range change {
		c(a)
	}
	f := factory(t, d, state.Options{Announce: a, OnChange: func(context.Context, state.Changed) { t.Error("told twice") }},
		state.StoreConfig{Name: "told", PublishChanges: true}, state.StoreConfig{Name: "silent"})
	told, err := state.Open[int](t.Context(), f, "told")
	require.NoError(t, err)
	silent, err = state.Open[int](t.Context(), f, "silent")
	require.NoError(t, err)
	return told, silent
}

// announced takes all entries there are out of the outbox.
func announced(t *testing.T, d state.OutboxDriver, change ...func(*state.OutboxConfig)) []state.Changed {
	t.Helper()
	box := openOutbox(t, d, append([]func(*state.OutboxConfig){func(c *state.OutboxConfig) { c.Name = "changes" }}, change...)...)
	all, err := take(t.Context(), box)
	require.NoError(t, err)
	require.Zero(t, outboxStats(t, box), "the counts are exact")
	return all
}

// take is what a relay does: it claims, reads and deletes until there is nothing.
func take(ctx context.Context, box state.Outbox) (all []state.Changed, err error) {
	for {
		entries, err := box.Claim(ctx, state.OutboxClaim{Owner: "me", Lease: time.Minute, MaxEntries: 1000})
		if len(entries) == 0 || err != nil {
			return all, err
		}
		some := make([]state.Changed, len(entries))
		for i := range entries {
			c := &some[i]
			if err := json.Unmarshal(entries[i].Body, c); err != nil {
				return all, err
			}
			if age := time.Since(entries[i].CreatedAt); c.Key != entries[i].Key || age > time.Minute || age < -time.Minute {
				return all, fmt.Errorf("the entry of %v has the key %q and was added %s ago", *c, entries[i].Key, age)
			}
		}
		if err := box.Delete(ctx, "me", ids(entries)...); err != nil {
			return all, err
		}
		all = append(all, some...)
	}
}

func announcedChanges(t *testing.T, open func(t *testing.T) state.Announcer) {
	ctx, d := t.Context(), open(t)
	var added atomic.Int64
	store, _ := announcing(t, d, func(a *state.Announce) {
		a.Added = func(backend string) {
			require.Equal(t, d.Backend(), backend)
			added.Add(1)
		}
	})
	first := mustSave(t, store, "k", 1)
	second, err := store.TrySave(ctx, "k", 2, first)
	require.NoError(t, err)
	_, err = store.TrySave(ctx, "k", 3, first)
	require.ErrorIs(t, err, state.ErrConflict)
	created, err := store.TrySave(ctx, "new", 1, "")
	require.NoError(t, err)
	_, err = store.TrySave(ctx, "new", 1, "")
	require.ErrorIs(t, err, state.ErrConflict)
	deleted, err := store.Delete(ctx, "absent")
	require.NoError(t, err)
	require.False(t, deleted)
	require.ErrorIs(t, store.TryDelete(ctx, "k", first), state.ErrConflict)
	require.ErrorIs(t, store.TryDelete(ctx, "absent", first), state.ErrNotFound)
	require.NoError(t, store.TryDelete(ctx, "new", created))
	require.EqualValues(t, 4, added.Load())

	_, err = store.Transact(ctx, []state.Op[int]{{Key: "k", Delete: true, ETag: &first}, {Key: "l", Value: 1}})
	require.ErrorIs(t, err, state.ErrConflict)
	results, err := store.Transact(ctx, []state.Op[int]{{Key: "k", Delete: true, ETag: &second}, {Key: "l", Value: 1}, {Key: "absent", Delete: true}})
	require.NoError(t, err)
	bulk, err := store.SaveBulk(ctx, []state.Item[int]{{Key: "m", Value: 1}, {Key: "l", Value: 1, ETag: etag("")}, {Key: "n", Value: 1}})
	require.NoError(t, err)
	require.ErrorIs(t, bulk[1].Err, state.ErrConflict)
	_, err = store.DeleteBulk(ctx, []string{"l", "absent", "m"})
	require.NoError(t, err)

	save := func(key, etag string) state.Changed {
		return state.Changed{Store: "told", Key: key, Operation: state.OperationSave, ETag: etag}
	}
	remove := func(key string) state.Changed {
		return state.Changed{Store: "told", Key: key, Operation: state.OperationDelete}
	}
	require.Equal(t, []state.Changed{
		save("k", first), save("k", second), save("new", created), remove("new"),
		remove("k"), save("l", results[1].ETag), save("m", bulk[0].ETag), save("n", bulk[2].ETag), remove("l"), remove("m"),
	}, announced(t, d))
}

func announcedSilent(t *testing.T, open func(t *testing.T) state.Announcer) {
	d := open(t)
	_, silent := announcing(t, d)
	mustSave(t, silent, "k", 1)
	_, err := silent.Transact(t.Context(), []state.Op[int]{{Key: "k", Value: 2}})
	require.NoError(t, err)
	require.Empty(t, announced(t, d))
	for name, a := range map[string]state.Announce{
		"no entry":  {Outbox: state.OutboxConfig{Name: "changes", MaxEntries: 1, MaxBytes: 1}},
		"no outbox": {Entry: func(context.Context, state.Changed) (state.OutboxEntry, error) { return state.OutboxEntry{}, nil }},
	} {
		_, err := state.NewFactory(nil, nil, state.Options{Announce: &a})
		require.ErrorIs(t, err, state.ErrInvalid, name)
	}
}

func announcedLock(t *testing.T, open func(t *testing.T) state.Announcer) {
	ctx, d := t.Context(), open(t)
	a := &state.Announce{
		Outbox: state.OutboxConfig{Name: "changes", MaxEntries: 100, MaxBytes: 1 << 20},
		Entry: func(_ context.Context, c state.Changed) (state.OutboxEntry, error) {
			body, err := json.Marshal(c)
			return state.OutboxEntry{Key: c.Key, Topic: "changed", Properties: []byte("{}"), Body: body}, err
		},
	}
	f := factory(t, d, state.Options{Announce: a}, state.StoreConfig{Name: "told", PublishChanges: true})
	store, err := state.Open[int](ctx, f, "told")
	require.NoError(t, err)
	h, err := openLock(t, f, "told").Acquire(ctx)
	require.NoError(t, err)
	results, err := store.TransactHeld(ctx, h, []state.Op[int]{{Key: "k", Value: 1}})
	require.NoError(t, err)
	require.NoError(t, h.Release(ctx))
	require.Equal(t, []state.Changed{{Store: "told", Key: "k", Operation: state.OperationSave, ETag: results[0].ETag}}, announced(t, d))
}

func announcedLimits(t *testing.T, open func(t *testing.T) state.Announcer) {
	ctx, d := t.Context(), open(t)
	store, _ := announcing(t, d, func(a *state.Announce) { a.Outbox.MaxEntries = 3 })
	first := mustSave(t, store, "a", 1)
	mustSave(t, store, "b", 1)
	_, err := store.SaveBulk(ctx, []state.Item[int]{{Key: "a", Value: 2}, {Key: "c", Value: 2}})
	require.ErrorIs(t, err, state.ErrFull)
	_, err = store.Transact(ctx, []state.Op[int]{{Key: "a", Delete: true}, {Key: "c", Value: 2}})
	require.ErrorIs(t, err, state.ErrFull)
	mustSave(t, store, "b", 2)
	_, err = store.Save(ctx, "a", 2)
	require.ErrorIs(t, err, state.ErrFull)
	_, err = store.Delete(ctx, "a")
	require.ErrorIs(t, err, state.ErrFull)
	entry, err := store.GetWithETag(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, 1, entry.Value)
	require.Equal(t, first, entry.ETag, "what was refused was not made")
	exists, err := store.Exists(ctx, "c")
	require.NoError(t, err)
	require.False(t, exists)

	_, err = store.Delete(ctx, "absent")
	require.NoError(t, err, "what has no event needs no room")
	_, err = store.TrySave(ctx, "a", 2, "")
	require.ErrorIs(t, err, state.ErrConflict)
	require.Len(t, announced(t, d), 3)
	_, err = store.SaveBulk(ctx, []state.Item[int]{{Key: "a", Value: 2}, {Key: "c", Value: 2}})
	require.NoError(t, err, "there is room again")
	require.Len(t, announced(t, d), 2)

	small, _ := announcing(t, d, func(a *state.Announce) { a.Outbox.MaxBytes = 10 })
	_, err = small.Save(ctx, "a", 3)
	require.ErrorIs(t, err, state.ErrFull)
}

// Callers that share a transaction: those that fit are made, and those alone.
func announcedManyAtOnce(t *testing.T, open func(t *testing.T) state.Announcer) {
	const callers, fit = 48, 17
	ctx, d := t.Context(), open(t)
	store, _ := announcing(t, d, func(a *state.Announce) { a.Outbox.MaxEntries = fit })
	var made, absent atomic.Int64
	together(t, callers, func(i int) error {
		key := fmt.Sprint("k", i)
		if i%4 == 0 {
			absent.Add(1)
			_, err := store.Delete(ctx, key)
			return err
		}
		_, err := store.Save(ctx, key, i)
		if errors.Is(err, state.ErrFull) {
			exists, err := store.Exists(ctx, key)
			if exists {
				return errors.Join(err, errors.New("refused and made"))
			}
			return err
		}
		made.Add(1)
		return err
	})
	require.EqualValues(t, fit, made.Load())
	require.Len(t, announced(t, d), fit)
	n, err := store.Len(ctx)
	require.NoError(t, err)
	require.EqualValues(t, fit, n)
}

func announcedRefused(t *testing.T, open func(t *testing.T) state.Announcer) {
	ctx, d := t.Context(), open(t)
	store, _ := announcing(t, d, func(a *state.Announce) {
		entry := a.Entry
		a.Entry = func(ctx context.Context, c state.Changed) (state.OutboxEntry, error) {
			if c.Key == "no" {
				return state.OutboxEntry{}, errors.New("no words for it")
			}
			return entry(ctx, c)
		}
	})
	_, err := store.Save(ctx, "no", 1)
	require.ErrorContains(t, err, "no words for it")
	_, err = store.Transact(ctx, []state.Op[int]{{Key: "yes", Value: 1}, {Key: "no", Value: 1}})
	require.ErrorContains(t, err, "no words for it")
	together(t, 16, func(i int) error {
		if i == 7 {
			if _, err := store.Save(ctx, "no", i); err == nil {
				return errors.New("made without its entry")
			}
			return nil
		}
		_, err := store.Save(ctx, fmt.Sprint("yes", i), i)
		return err
	})
	require.Len(t, announced(t, d), 15)
	exists, err := store.ExistsBulk(ctx, []string{"no", "yes"})
	require.NoError(t, err)
	require.Equal(t, []bool{false, false}, exists)
}

func announcedApart(t *testing.T, open func(t *testing.T) state.Announcer) {
	ctx, d := t.Context(), open(t)
	store, silent := announcing(t, d)
	other, _ := announcing(t, d, func(a *state.Announce) { a.Outbox.Name = "others" })
	together(t, 24, func(i int) error {
		_, err := []*state.Store[int]{store, other, silent}[i%3].Save(ctx, fmt.Sprint("k", i), i)
		return err
	})
	require.Len(t, announced(t, d), 8)
	require.Len(t, announced(t, d, func(c *state.OutboxConfig) { c.Name = "others" }), 8)
}

func announcedCancelled(t *testing.T, open func(t *testing.T) state.Announcer) {
	d := open(t)
	store, _ := announcing(t, d)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := store.Save(cancelled, "k", 1)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, announced(t, d))
}

// Two processes change a few keys at once, in every way there is, while a third takes what they announce. What it got is
// for each key the log of its changes: played back, it has every version in order and ends in what is there.
func announcedLog(t *testing.T, open func(t *testing.T) state.Announcer) {
	const workers, rounds, keys = 12, 60, 6
	ctx := t.Context()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var mu sync.Mutex
	versions := map[string]int64{} // by ETag, of what was saved
	removed := 0
	saved := func(etag string, version int64) {
		mu.Lock()
		defer mu.Unlock()
		versions[etag] = version
	}
	first, second := open(t), open(t)
	one, _ := announcing(t, first)
	two, _ := announcing(t, second)
	box := openOutbox(t, open(t), func(c *state.OutboxConfig) { c.Name = "changes" })
	reading, stop := context.WithCancel(ctx)
	var log []state.Changed
	var failed error
	var reader sync.WaitGroup
	reader.Go(func() {
		var patience refusals
		for over := false; !over && failed == nil; {
			over = reading.Err() != nil
			some, err := take(ctx, box)
			log = append(log, some...)
			if patience.again(err) {
				over = false
			} else {
				failed = err
			}
		}
	})
	together(t, workers, func(w int) error {
		store, random := []*state.Store[int]{one, two}[w%2], rand.New(rand.NewPCG(seed, uint64(w)))
		return change(ctx, store, random, rounds, keys, saved, func(n int) {
			mu.Lock()
			defer mu.Unlock()
			removed += n
		})
	})
	stop()
	reader.Wait()
	require.NoError(t, failed)

	now := map[string]state.Changed{}
	deletes, saves := 0, 0
	for i, c := range log {
		before, there := now[c.Key]
		if c.Operation == state.OperationDelete {
			require.True(t, there, "entry %d deletes %s, which the entries before it have not saved", i, c.Key)
			delete(now, c.Key)
			deletes++
			continue
		}
		version, made := versions[c.ETag]
		require.True(t, made, "entry %d tells of a change of %s that nobody made", i, c.Key)
		if there {
			require.Equal(t, versions[before.ETag]+1, version, "entry %d of key %s", i, c.Key)
		} else {
			require.EqualValues(t, 1, version, "entry %d of key %s", i, c.Key)
		}
		now[c.Key] = c
		saves++
	}
	require.Equal(t, len(versions), saves, "every save has its entry, once")
	require.Equal(t, removed, deletes, "every delete has its entry, once")
	for k := range keys {
		key := fmt.Sprint("k", k)
		entry, err := one.GetWithETag(ctx, key)
		if last, there := now[key]; there {
			require.NoError(t, err)
			require.Equal(t, last.ETag, entry.ETag)
		} else {
			require.ErrorIs(t, err, state.ErrNotFound)
		}
	}
	t.Logf("%d saves and %d deletes", saves, deletes)
}

// refusals counts calls that were refused. Several processes at one SQLite file wait for each other for five seconds, and then are told
// that nothing was done: who is told so does it again, a few times. What was refused must have no entry.
type refusals int

func (r *refusals) again(err error) bool {
	if !errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrOutcomeUnknown) {
		return false
	}
	*r++
	return *r <= 10
}

// change makes random changes, and tells of those that were made.
func change(ctx context.Context, store *state.Store[int], random *rand.Rand, rounds, keys int, saved func(string, int64), removed func(int)) error {
	key := func() string { return fmt.Sprint("k", random.IntN(keys)) }
	var patience refusals
	for i := range rounds {
		k := key()
		entry, err := store.GetWithETag(ctx, k)
		if patience.again(err) {
			continue
		}
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		switch random.IntN(6) {
		case 0, 1:
			var s state.Saved
			if s, err = store.SaveWith(ctx, k, i, state.SaveOptions{}); err == nil {
				saved(s.ETag, s.Version)
			}
		case 2:
			var s state.Saved
			if s, err = store.TrySaveWith(ctx, k, i, entry.ETag, state.SaveOptions{}); err == nil {
				saved(s.ETag, s.Version)
			}
		case 3:
			var done bool
			if done, err = store.Delete(ctx, k); done {
				removed(1)
			}
		case 4:
			var results []state.Result
			results, err = store.SaveBulk(ctx, []state.Item[int]{{Key: "k0", Value: i}, {Key: "k1", Value: i, ETag: &entry.ETag}})
			for _, r := range results {
				if r.Err == nil {
					saved(r.ETag, r.Version)
				}
			}
		case 5:
			var results []state.Result
			results, err = store.Transact(ctx, []state.Op[int]{{Key: k, Value: i, ETag: &entry.ETag}, {Key: k + "x", Value: i}, {Key: k + "y", Delete: i%2 == 0, Value: i}})
			for _, r := range results {
				switch {
				case r.ETag != "":
					saved(r.ETag, r.Version)
				case r.Done:
					removed(1)
				}
			}
		}
		if err != nil && !errors.Is(err, state.ErrConflict) && !errors.Is(err, state.ErrNotFound) && !patience.again(err) {
			return err
		}
	}
	return nil
}
