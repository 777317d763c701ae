package statetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Leader election and unique names rest on this: of many that create a key, one does.
func oneCreatorWins(t *testing.T, s *suite) {
	store := s.raw(t)
	for round := range 5 {
		key := fmt.Sprintf("k%d", round)
		winner := race(t, 32, func(worker int) error {
			_, err := store.TrySave(t.Context(), key, jsontext.Value(strconv.Itoa(worker)), "")
			return err
		})
		requireValue(t, store, key, strconv.Itoa(winner))
	}
}

// Of many that saw the same version, one may change it. The others learn that they did not.
func oneEditorWins(t *testing.T, s *suite) {
	store := s.raw(t)
	for round := range 5 {
		seen := mustSave(t, store, "k", jsontext.Value("null"))
		winner := race(t, 32, func(worker int) error {
			if round == 4 && worker%2 == 0 {
				return store.TryDelete(t.Context(), "k", seen)
			}
			_, err := store.TrySave(t.Context(), "k", jsontext.Value(strconv.Itoa(worker)), seen)
			return err
		})
		if round == 4 && winner%2 == 0 {
			requireAbsent(t, store, "k")
		} else {
			requireValue(t, store, "k", strconv.Itoa(winner))
		}
	}
}

// race lets workers try at once and returns the one that succeeded. The others must have failed by a conflict, or found
// the key gone.
func race(t *testing.T, workers int, try func(worker int) error) int {
	t.Helper()
	var winners atomic.Int64
	var winner atomic.Int64
	start := make(chan struct{})
	errs := make([]error, workers)
	var wait sync.WaitGroup
	for i := range workers {
		wait.Go(func() {
			<-start
			switch err := try(i); {
			case err == nil:
				winners.Add(1)
				winner.Store(int64(i))
			case !errors.Is(err, state.ErrConflict) && !errors.Is(err, state.ErrNotFound):
				errs[i] = err
			}
		})
	}
	close(start)
	wait.Wait()
	require.NoError(t, errors.Join(errs...))
	require.EqualValues(t, 1, winners.Load(), "winners")
	return int(winner.Load())
}

// A save without condition does not ask what is there, so it has no reason to fail; and each one counts.
func unconditionalSaves(t *testing.T, s *suite) {
	store := s.raw(t)
	const workers, times = 16, 20
	var etags sync.Map
	together(t, workers, func(worker int) error {
		for range times {
			etag, err := store.Save(t.Context(), "k", jsontext.Value(strconv.Itoa(worker)))
			if err != nil {
				return err
			}
			if _, twice := etags.LoadOrStore(etag, worker); twice && s.keeps(ToldETags) {
				return fmt.Errorf("two saves got the ETag %q", etag)
			}
		}
		return nil
	})
	entry, err := store.GetWithETag(t.Context(), "k")
	require.NoError(t, err)
	s.requireVersion(t, workers*times, entry.Version)
	if !s.keeps(ToldETags) {
		return
	}
	last, ok := etags.Load(entry.ETag)
	require.True(t, ok)
	require.Equal(t, strconv.Itoa(last.(int)), string(entry.Value), "value and ETag are of one save")
}

// The lost update, the commonest fault of a compare-and-set.
func counter(t *testing.T, s *suite) { count(t, s.engine(t), 8, 25, s.keeps(Versions)) }

// The same over two keys.
func transfersKeepTheSum(t *testing.T, s *suite) {
	s.needs(t, Conditions)
	Transfers(t, s.engine(t), 8, 25)
}

func (s *suite) engine(t *testing.T) state.Engine {
	t.Helper()
	name := newName()
	cfg := factory(t, s.driver, state.Options{}, state.StoreConfig{Name: name}).Stores()[0] // with defaults
	engine, err := s.driver.Open(t.Context(), cfg)
	require.NoError(t, err)
	return engine
}

// Linearity of one key: if every change was made on condition of the ETag before it, then all changes together form one
// chain without branches from the first to the last, every reader sees versions that only grow, and what it reads is a
// link of the chain.
func changesFormOneLine(t *testing.T, s *suite) {
	s.needs(t, Versions, ToldETags)
	store := openStore[link](t, s, state.StoreConfig{Name: newName()})
	ctx := t.Context()
	first := mustSave(t, store, "k", link{})
	var chain sync.Map // ETag -> the ETag that followed
	together(t, 8, func(worker int) error {
		last := int64(0)
		for i := range 30 {
			entry, err := store.GetWithETag(ctx, "k")
			if err != nil {
				return err
			}
			if entry.Version < last {
				return fmt.Errorf("read version %d after %d", entry.Version, last)
			}
			last = entry.Version
			if err := extend(ctx, store, &chain, entry, worker, i); err != nil {
				return err
			}
		}
		return nil
	})
	entry, err := store.GetWithETag(ctx, "k")
	require.NoError(t, err)
	links := 0
	chain.Range(func(any, any) bool { links++; return true })
	require.EqualValues(t, links+1, entry.Version, "as many changes as were acknowledged")
	at := first
	for range links {
		next, ok := chain.Load(at)
		require.True(t, ok, "the chain is broken")
		at = next.(string)
	}
	require.Equal(t, entry.ETag, at, "the chain ends with what is stored")
}

// A link is a value that tells which version it was made from.
type link struct {
	After  string
	Worker int
	Turn   int
}

func extend(ctx context.Context, store *state.Store[link], chain *sync.Map, from state.Entry[link], worker, turn int) error {
	next, err := store.TrySave(ctx, "k", link{After: from.ETag, Worker: worker, Turn: turn}, from.ETag)
	if errors.Is(err, state.ErrConflict) {
		return nil
	}
	if err != nil {
		return err
	}
	if other, twice := chain.LoadOrStore(from.ETag, next); twice {
		return fmt.Errorf("%q was followed by %q and by %q", from.ETag, other, next)
	}
	return nil
}
