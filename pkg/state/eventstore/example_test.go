package eventstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
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
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
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

	db, err := sql.Open("sqlite", filepath.Join(folder, "bank.db"))
	check(err)
	defer func() { check(db.Close()) }()
	_, err = db.ExecContext(ctx, "CREATE TABLE held (account TEXT PRIMARY KEY, owner TEXT, cents INTEGER)")
	check(err)
	projection, err := events.Subscribe(eventstore.SubscriptionConfig{Name: "held", Category: "account", HandleIn: project(types)})
	check(err)
	defer func() { check(projection.Close(ctx)) }()

	account, err := accounts.Decide(ctx, "a-1", func(eventstore.Loaded[Account]) ([]any, error) {
		return []any{Opened{Owner: "Ada"}, Moved{Cents: 500}}, nil
	})
	check(err)
	fmt.Println(account.State, "at version", account.Version)
	_, err = accounts.Decide(ctx, "a-1", withdraw(700))
	fmt.Println(err)
	account, err = accounts.Decide(ctx, "a-1", withdraw(200))
	check(err)

	var cents int64
	for cents != account.State.Cents { // the projection is a moment behind
		check(db.QueryRowContext(ctx, "SELECT COALESCE(SUM(cents), 0) FROM held WHERE owner = 'Ada'").Scan(&cents))
	}
	fmt.Println("Ada has", cents)
	// Output:
	// {Ada 500} at version 2
	// there is too little in the account
	// Ada has 300
}

// project changes the table in the transaction in which an event is marked as handled, and so once.
func project(types *eventstore.Types) func(ctx context.Context, tx *sql.Tx, e eventstore.Recorded) error {
	return func(ctx context.Context, tx *sql.Tx, e eventstore.Recorded) error {
		event, err := types.Decode(e)
		switch event := event.(type) {
		case Opened:
			_, err = tx.ExecContext(ctx, "INSERT INTO held VALUES (?, ?, 0)", e.Stream.ID, event.Owner)
		case Moved:
			_, err = tx.ExecContext(ctx, "UPDATE held SET cents = cents + ? WHERE account = ?", event.Cents, e.Stream.ID)
		}
		return err
	}
}

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}
