package statetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Counter has workers count one key up, each a number of times, by reading it and saving it on condition that nobody
// else did meanwhile. No count may be lost, and none fails for another reason than a conflict.
func Counter(t *testing.T, e state.Engine, workers, times int) {
	t.Helper()
	count(t, e, workers, times, true)
}

func count(t *testing.T, e state.Engine, workers, times int, versions bool) {
	t.Helper()
	ctx := t.Context()
	_, err := e.Apply(ctx, []state.Change{{Key: "counter", Value: []byte("0"), Expiry: state.Never}})
	require.NoError(t, err)
	together(t, workers, func(int) error {
		for range times {
			if err := countUp(ctx, e); err != nil {
				return err
			}
		}
		return nil
	})
	records, err := e.Get(ctx, []string{"counter"})
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(workers*times), string(records[0].Value))
	if versions {
		require.EqualValues(t, workers*times+1, records[0].Version)
	}
}

func countUp(ctx context.Context, e state.Engine) error {
	for {
		records, err := e.Get(ctx, []string{"counter"})
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(records[0].Value))
		if err != nil {
			return err
		}
		outcomes, err := e.Apply(ctx, []state.Change{{Key: "counter", Value: []byte(strconv.Itoa(n + 1)), When: state.IfETag, ETag: records[0].ETag, Expiry: state.Keep}})
		if err != nil || outcomes[0].Done {
			return err
		}
	}
}

// Transfers has workers move amounts between a few accounts, two at a time in any order, by Transact. The sum never
// changes, and what the engine calls normal (deadlocks) reaches no caller.
func Transfers(t *testing.T, e state.Engine, workers, times int) {
	t.Helper()
	ctx := t.Context()
	const accounts, opening = 4, 1000
	var opened []state.Change
	var keys []string
	for i := range accounts {
		keys = append(keys, fmt.Sprintf("{bank}account-%d", i))
		opened = append(opened, state.Change{Key: keys[i], Value: []byte(strconv.Itoa(opening)), Expiry: state.Never})
	}
	_, err := e.Apply(ctx, opened)
	require.NoError(t, err)
	together(t, workers, func(worker int) error {
		random := rand.New(rand.NewPCG(uint64(worker), 7))
		for range times {
			if err := transfer(ctx, e, random, keys); err != nil {
				return err
			}
		}
		return nil
	})
	records, err := e.Get(ctx, keys)
	require.NoError(t, err)
	sum := 0
	for _, r := range records {
		n, err := strconv.Atoi(string(r.Value))
		require.NoError(t, err)
		sum += n
	}
	require.Equal(t, accounts*opening, sum)
}

func transfer(ctx context.Context, e state.Engine, random *rand.Rand, keys []string) error {
	for {
		order := random.Perm(len(keys))
		pair := []string{keys[order[0]], keys[order[1]]}
		records, err := e.Get(ctx, pair)
		if err != nil {
			return err
		}
		var changes []state.Change
		for i, r := range records {
			n, err := strconv.Atoi(string(r.Value))
			if err != nil {
				return err
			}
			changes = append(changes, state.Change{Key: r.Key, Value: []byte(strconv.Itoa(n + 2*i - 1)), When: state.IfETag, ETag: r.ETag, Expiry: state.Keep})
		}
		outcomes, err := e.Transact(ctx, changes)
		if err != nil || outcomes[0].Done && outcomes[1].Done {
			return err
		}
		if outcomes[0].Done || outcomes[1].Done {
			return errors.New("half a transaction was made")
		}
	}
}

// together runs workers at once, and fails if one of them does.
func together(t *testing.T, workers int, work func(worker int) error) {
	t.Helper()
	errs := make([]error, workers)
	var wait sync.WaitGroup
	for i := range workers {
		wait.Go(func() { errs[i] = work(i) })
	}
	wait.Wait()
	require.NoError(t, errors.Join(errs...))
}
