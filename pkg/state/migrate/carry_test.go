package migrate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

// openPlain opens a store in memory.
func openPlain(t require.TestingT) (state.Engine, func()) {
	d := memorystate.New()
	e, err := d.Open(context.Background(), state.StoreConfig{Name: "s"})
	require.NoError(t, err)
	return e, func() { _ = d.Close() }
}

// slow is an engine some of whose calls, but not most, take long before they are made or after: long enough for all that another does.
type slow struct {
	state.Engine
	rand *rand.Rand
	mu   *sync.Mutex
}

func (s slow) pause() {
	s.mu.Lock()
	long := s.rand.IntN(8) == 0
	s.mu.Unlock()
	if long {
		<-time.After(300 * time.Microsecond)
	}
}

func (s slow) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	s.pause()
	defer s.pause()
	return s.Engine.Get(ctx, keys)
}

func (s slow) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	s.pause()
	defer s.pause()
	return s.Engine.Apply(ctx, changes)
}

// Whoever writes, and in whatever order the carrying comes through: when all of it is over the other place is as the one that decides. Some
// carry what they have changed, as nodes do, and one walks over all keys a few times, as a copy does.
func TestCarryingConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		writers := rapid.IntRange(1, 6).Draw(t, "writers")
		keys := rapid.IntRange(1, 3).Draw(t, "keys")
		passes := rapid.IntRange(0, 4).Draw(t, "passes")
		random := slow{rand: rand.New(rand.NewPCG(seed, 1)), mu: new(sync.Mutex)}
		from, closeFrom := openPlain(t)
		defer closeFrom()
		to, closeTo := openPlain(t)
		defer closeTo()
		a, b := random, random
		a.Engine, b.Engine = from, to
		all := make([]string, keys)
		for i := range all {
			all[i] = fmt.Sprint("k", i)
		}
		node := carrier{from: a, to: b, always: true, entitled: func() error { return nil }}
		copier := carrier{from: a, to: b}
		failed := make(chan error, writers+1)
		var nodes, copying sync.WaitGroup
		for w := range writers {
			choose := rand.New(rand.NewPCG(seed, uint64(w)+2))
			nodes.Go(func() {
				for i := range 20 {
					key := all[choose.IntN(keys)]
					change := state.Change{Key: key, Value: []byte(strconv.Itoa(choose.IntN(2))), Expiry: state.Never, Delete: choose.IntN(3) == 0}
					_, err := a.Apply(context.Background(), []state.Change{change})
					if err == nil {
						_, err = node.carry(context.Background(), []string{key})
					}
					if err != nil {
						failed <- fmt.Errorf("change %d: %w", i, err)
						return
					}
				}
			})
		}
		copying.Go(func() { // and ends before the others: in the end it would mend what they did wrong
			for range passes {
				if _, err := copier.carry(context.Background(), all); err != nil {
					failed <- err
					return
				}
			}
		})
		copying.Wait()
		nodes.Wait()
		select {
		case err := <-failed:
			require.NoError(t, err)
		default:
		}
		is, err := to.Get(context.Background(), all)
		require.NoError(t, err)
		should, err := from.Get(context.Background(), all)
		require.NoError(t, err)
		for i := range all {
			require.Empty(t, difference(should[i], is[i]), "%s is %q and should be %q (expires %v)", all[i], is[i].Value, should[i].Value, is[i].ExpiresAt)
			require.Zero(t, is[i].ExpiresAt, "nothing stays on probation")
		}
	})
}

// One that loses its say between its two looks writes nothing for good: a key that it created goes by itself, and another is not touched.
func TestLateCarrierLeavesNothing(t *testing.T) {
	from, closeFrom := openPlain(t)
	defer closeFrom()
	to, closeTo := openPlain(t)
	defer closeTo()
	for _, e := range []state.Engine{from, to} {
		_, err := e.Apply(t.Context(), []state.Change{{Key: "there", Value: []byte(`"old"`), Expiry: state.Never}})
		require.NoError(t, err)
	}
	_, err := from.Apply(t.Context(), []state.Change{{Key: "new", Value: []byte(`1`), Expiry: state.Never}})
	require.NoError(t, err)
	asked, begun := 0, time.Now()
	late := carrier{from: from, to: to, always: true, entitled: func() error {
		if asked++; asked > 1 {
			return errLate
		}
		return nil
	}}
	_, err = late.carry(t.Context(), []string{"new"})
	require.ErrorIs(t, err, errLate)
	records, err := to.Get(t.Context(), []string{"new"})
	require.NoError(t, err)
	require.WithinRange(t, records[0].ExpiresAt, begun.Add(probation-time.Second), time.Now().Add(probation+time.Second))

	asked = 1
	_, err = late.carry(t.Context(), []string{"there"})
	require.ErrorIs(t, err, errLate)
	records, err = to.Get(t.Context(), []string{"there"})
	require.NoError(t, err)
	require.Equal(t, `"old"`, string(records[0].Value))
}

// Digits, order, and what a string says count; how it is escaped and white space do not.
func TestWhatIsTheSame(t *testing.T) {
	now := time.Now()
	record := func(value string, expires time.Time) state.Record {
		return state.Record{Key: "k", Found: true, Value: []byte(value), ExpiresAt: expires}
	}
	for _, same := range [][2]string{{`{"a":1}`, ` { "a" : 1 } `}, {`"\u0041\/"`, `"A/"`}, {`"é"`, `"\u00e9"`}} {
		require.Empty(t, difference(record(same[0], time.Time{}), record(same[1], time.Time{})), same)
	}
	for _, other := range [][2]string{{`9007199254740993`, `9007199254740992`}, {`1.0`, `1`}, {`1e2`, `100`}, {`{"a":1,"b":2}`, `{"b":2,"a":1}`}, {`"a"`, `"a "`}, {`null`, `0`}} {
		require.Equal(t, "another value", difference(record(other[0], time.Time{}), record(other[1], time.Time{})), other)
		var a, b Checksum
		a.add(record(other[0], time.Time{}), time.Time{})
		b.add(record(other[1], time.Time{}), time.Time{})
		require.NotEqual(t, a, b)
	}
	require.Empty(t, difference(record("1", now), record("1", now.Add(time.Second))))
	require.Equal(t, "another expiry", difference(record("1", now), record("1", now.Add(3*time.Second))))
	require.Equal(t, "another expiry", difference(record("1", now), record("1", time.Time{})))
	require.Equal(t, "missing", difference(record("1", now), state.Record{}))
	require.Equal(t, "left over", difference(state.Record{}, record("1", now)))
}

// A walk that meets keys again counts each once.
func TestSeen(t *testing.T) {
	for _, ordered := range []bool{true, false} {
		s := newSeen()
		n := 0
		for page := range 30 {
			keys := make([]string, 100)
			for i := range keys {
				k := page*90 + i // ten of each page come again
				if !ordered {
					k = (k * 7919) % 100_003
				}
				keys[i] = fmt.Sprintf("%08d", k)
			}
			n += len(s.fresh(keys))
		}
		require.Equal(t, 29*90+100, n)
		require.Equal(t, ordered, s.hashes == nil)
	}
}

// interrupted is an engine after whose first read something else happens.
type interrupted struct {
	state.Engine
	then func()
}

func (i *interrupted) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	records, err := i.Engine.Get(ctx, keys)
	if then := i.then; then != nil {
		i.then = nil
		then()
	}
	return records, err
}

// Two cases that chance seldom makes: what is as it was before has been something else meanwhile.
func TestCarrierIsOvertaken(t *testing.T) {
	ctx := t.Context()
	set := func(e state.Engine, value string) {
		change := state.Change{Key: "k", Value: []byte(value), Expiry: state.Never, Delete: value == ""}
		_, err := e.Apply(ctx, []state.Change{change})
		require.NoError(t, err)
	}
	for _, c := range []struct{ name, before, read, after string }{
		{"a key that was deleted, where there is none", "", "1", ""},
		{"a value that came back, where it is still", "1", "2", "1"},
	} {
		for _, copies := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, copier %t", c.name, copies), func(t *testing.T) {
				from, closeFrom := openPlain(t)
				defer closeFrom()
				to, closeTo := openPlain(t)
				defer closeTo()
				set(to, c.before)
				set(from, c.read)
				node := carrier{from: from, to: to, always: true, entitled: func() error { return nil }}
				overtaken := &interrupted{Engine: from, then: func() {
					set(from, c.after)
					_, err := node.carry(ctx, []string{"k"})
					require.NoError(t, err)
				}}
				late := carrier{from: overtaken, to: to}
				if !copies {
					late.always, late.entitled = true, node.entitled
				}
				_, err := late.carry(ctx, []string{"k"})
				require.NoError(t, err)
				is, err := to.Get(ctx, []string{"k"})
				require.NoError(t, err)
				require.Equal(t, c.after, string(is[0].Value))
			})
		}
	}
}
