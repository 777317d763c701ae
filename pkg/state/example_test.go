package state_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

type Account struct {
	Name  string `json:"name"`
	Coins int64  `json:"coins"`
}

// A program opens its stores by name, with the type of their values. Which engine keeps them is configuration.
func Example() {
	ctx := context.Background()
	factory, err := state.NewFactory(
		[]state.StoreConfig{{Name: "accounts", Backend: "memory"}},
		[]state.Driver{memorystate.New()},
		state.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer factory.Close()
	accounts, err := state.Open[Account](ctx, factory, "accounts")
	if err != nil {
		log.Fatal(err)
	}

	if _, err := accounts.Save(ctx, "ada", Account{Name: "Ada", Coins: 10}); err != nil {
		log.Fatal(err)
	}
	ada, err := accounts.Get(ctx, "ada")
	fmt.Println(ada.Name, ada.Coins, err)
	_, err = accounts.Get(ctx, "bob")
	fmt.Println(errors.Is(err, state.ErrNotFound))
	// Output:
	// Ada 10 <nil>
	// true
}

// Two that change the same value at once: TrySave lets one through, and the other reads again.
func ExampleStore_TrySave() {
	ctx := context.Background()
	factory, _ := state.NewFactory([]state.StoreConfig{{Name: "accounts", Backend: "memory"}}, []state.Driver{memorystate.New()}, state.Options{})
	defer factory.Close()
	accounts, _ := state.Open[Account](ctx, factory, "accounts")
	accounts.Save(ctx, "ada", Account{Name: "Ada"})

	earn := func(coins int64) error {
		for {
			entry, err := accounts.GetWithETag(ctx, "ada")
			if err != nil {
				return err
			}
			entry.Value.Coins += coins
			if _, err = accounts.TrySave(ctx, "ada", entry.Value, entry.ETag); !errors.Is(err, state.ErrConflict) {
				return err
			}
		}
	}
	fmt.Println(earn(5), earn(2))
	ada, _ := accounts.Get(ctx, "ada")
	fmt.Println(ada.Coins)
	// Output:
	// <nil> <nil>
	// 7
}

// Changes that belong together are made together or not at all.
func ExampleStore_Transact() {
	ctx := context.Background()
	factory, _ := state.NewFactory([]state.StoreConfig{{Name: "orders", Backend: "memory"}}, []state.Driver{memorystate.New()}, state.Options{})
	defer factory.Close()
	orders, _ := state.Open[string](ctx, factory, "orders")

	mustBeNew := ""
	_, err := orders.Transact(ctx, []state.Op[string]{
		{Key: "{order-7}:head", Value: "open", ETag: &mustBeNew},
		{Key: "{order-7}:basket", Delete: true},
		{Key: "{order-7}:hold", Value: "3 swords", Expiry: state.After(15 * time.Minute)},
	})
	fmt.Println(err)
	_, err = orders.Transact(ctx, []state.Op[string]{{Key: "{order-7}:head", Value: "open", ETag: &mustBeNew}})
	fmt.Println(err)
	// Output:
	// <nil>
	// state: store "orders": conflict on "{order-7}:head"; nothing was changed
}
