package eventstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/sqliteevents"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

// What happens to an account.
type (
	Opened struct{ Owner string }
	Moved  struct{ Cents int64 } // into it, or when negative out of it
)

// Account is what that leads to.
type Account struct {
	Owner string
	Cents int64
}

func (a *Account) apply(event any) error {
	switch e := event.(type) {
	case Opened:
		a.Owner = e.Owner
	case Moved:
		a.Cents += e.Cents
	}
	return nil
}

func withdraw(cents int64) func(eventstore.Loaded[Account]) ([]any, error) {
	return func(a eventstore.Loaded[Account]) ([]any, error) {
		if a.State.Cents < cents {
			return nil, errors.New("there is too little in the account")
		}
		return []any{Moved{Cents: -cents}}, nil
	}
}

// An account decides by what has happened to it, and a projection keeps what each owner has, in a table of the same file.
func Example() {
	ctx := context.Background()
	folder, err := os.MkdirTemp("", "events")
	check(err)
	defer func() { check(os.RemoveAll(folder)) }()
	driver, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(folder, "bank.db")})
	check(err)
	defer func() { check(driver.Close()) }()
	events, err := sqliteevents.Open(ctx, driver, eventstore.Config{})
	check(err)
	types, err := eventstore.NewTypes(eventstore.TypeOf[Opened]("opened", 1), eventstore.TypeOf[Moved]("moved", 1))
	check(err)
	accounts, err := eventstore.NewAggregate(events, eventstore.AggregateConfig[Account]{Category: "account", Types: types,
		Apply: (*Account).apply, Snapshots: eventstore.SnapshotPolicy{Events: 100}})
	check(err)

	held, err := projection.Open(ctx, events, projection.Config{Definitions: []projection.Definition{{Name: "held", Category: "account", Apply: project(types),
		Tables: []projection.Table{{Name: "held", Columns: "(account TEXT PRIMARY KEY, owner TEXT, cents INTEGER)"}}}}})
	check(err)
	defer func() { check(held.Close(ctx)) }()
	db, err := sql.Open("sqlite", filepath.Join(folder, "bank.db"))
	check(err)
	defer func() { check(db.Close()) }()

	account, err := accounts.Decide(ctx, "a-1", func(eventstore.Loaded[Account]) ([]any, error) {
		return []any{Opened{Owner: "Ada"}, Moved{Cents: 500}}, nil
	})
	check(err)
	fmt.Println(account.State, "at version", account.Version)
	_, err = accounts.Decide(ctx, "a-1", withdraw(700))
	fmt.Println(err)
	account, err = accounts.Decide(ctx, "a-1", withdraw(200))
	check(err)

	live, err := held.Await(ctx, "held", account.Version) // the projection is a moment behind, and the only stream has the positions
	check(err)
	var cents int64
	check(db.QueryRowContext(ctx, "SELECT SUM(cents) FROM "+live.Table("held")+" WHERE owner = 'Ada'").Scan(&cents))
	fmt.Println("Ada has", cents)
	// Output:
	// {Ada 500} at version 2
	// there is too little in the account
	// Ada has 300
}

// project changes the version's table in the transaction in which events are marked as applied, and so once.
func project(types *eventstore.Types) func(ctx context.Context, b projection.Batch) error {
	return func(ctx context.Context, b projection.Batch) error {
		held := b.Version.Table("held")
		for _, e := range b.Events {
			event, err := types.Decode(e)
			switch event := event.(type) {
			case Opened:
				_, err = b.Tx.ExecContext(ctx, "INSERT INTO "+held+" VALUES (?, ?, 0)", e.Stream.ID, event.Owner)
			case Moved:
				_, err = b.Tx.ExecContext(ctx, "UPDATE "+held+" SET cents = cents + ? WHERE account = ?", event.Cents, e.Stream.ID)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}
