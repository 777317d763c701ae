package pairs

import (
	"context"
	"fmt"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

const (
	storeName = "accounts"
	accounts  = 1000 // in each store
	bulk      = 100  // keys of a bulk call

	// What the queries look for: levels is how many different ones there are.
	levels   = 20
	level    = 7
	pageSize = 20
)

// account is the value of the benchmarks, about 1 KiB of JSON.
type account struct {
	Number int    `json:"number"`
	Level  int    `json:"level"`
	Text   string `json:"text"`
}

func newAccount(number int) account { return account{number, number % levels, text} }

func accountKey(number int) string { return fmt.Sprintf("account-%d", number) }

func checkJSON(data []byte, number int) error {
	var got account
	if err := json.Unmarshal(data, &got); err != nil {
		return err
	}
	return got.check(number)
}

func (a account) check(number int) error {
	if a != newAccount(number) {
		return fmt.Errorf("account %d is not as it was saved: %d", number, a.Number)
	}
	return nil
}

func newFactory(b *testing.B, d state.Driver, indexes ...string) *state.Factory {
	factory, err := state.NewFactory([]state.StoreConfig{{Name: storeName, Backend: d.Backend(), Indexes: indexes}}, []state.Driver{d}, state.Options{})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, factory.Close()) })
	return factory
}

func saveAccounts(b *testing.B, s *state.Store[account]) {
	items := make([]state.Item[account], accounts)
	for number := range items {
		items[number] = state.Item[account]{Key: accountKey(number), Value: newAccount(number)}
	}
	results, err := s.SaveBulk(b.Context(), items)
	require.NoError(b, err)
	require.Len(b, results, accounts)
	for _, result := range results {
		require.NoError(b, result.Err)
	}
}

// Each caller has a key of its own.

func getter(s *state.Store[account]) call {
	return func(ctx context.Context, caller int) error {
		got, err := s.Get(ctx, accountKey(caller))
		if err != nil {
			return err
		}
		return got.check(caller)
	}
}

func saver(s *state.Store[account]) call {
	return func(ctx context.Context, caller int) error {
		etag, err := s.Save(ctx, accountKey(caller), newAccount(caller))
		if err == nil && etag == "" {
			err = fmt.Errorf("account %d: no ETag", caller)
		}
		return err
	}
}

func manyGetter(s *state.Store[account]) call {
	keys := make([]string, bulk)
	for number := range keys {
		keys[number] = accountKey(number)
	}
	return func(ctx context.Context, _ int) error {
		entries, err := s.GetBulk(ctx, keys)
		if err != nil {
			return err
		}
		for number, entry := range entries {
			if err := entry.Value.check(number); err != nil {
				return err
			}
		}
		return nil
	}
}

func finder(s *state.QueryableStore[account], query state.Query) call {
	return func(ctx context.Context, _ int) error {
		entries, err := s.Query(ctx, query)
		if err != nil {
			return err
		}
		found := make([]account, len(entries))
		for i, entry := range entries {
			found[i] = entry.Value
		}
		return checkPage(found)
	}
}

// pageQuery asks for the highest numbers of a level.
func pageQuery(b *testing.B) state.Query {
	filter, err := state.ParseFilter([]byte(`{"level":7}`))
	require.NoError(b, err)
	return state.Query{Filter: filter, Sort: []state.Sort{{Field: "number", Descending: true}}, Limit: pageSize}
}

// oneFinder asks for the one account that has the caller's number.
func oneFinder(s *state.QueryableStore[account]) call {
	return func(ctx context.Context, caller int) error {
		entries, err := s.Query(ctx, state.Query{Filter: state.Where("number").Eq(caller), Limit: 1})
		found := make([]account, len(entries))
		for i, entry := range entries {
			found[i] = entry.Value
		}
		return checkOne(found, err)(caller)
	}
}

// checkOne checks the answer of a query for one number.
func checkOne(found []account, err error) func(number int) error {
	return func(number int) error {
		if err != nil || len(found) != 1 {
			return fmt.Errorf("%d accounts found: %w", len(found), err)
		}
		return found[0].check(number)
	}
}

// checkPage checks the answer of a query: the highest numbers of the level.
func checkPage(found []account) error {
	if len(found) != pageSize {
		return fmt.Errorf("%d accounts found, not %d", len(found), pageSize)
	}
	for i, a := range found {
		if err := a.check(accounts - levels*(i+1) + level); err != nil {
			return err
		}
	}
	return nil
}
