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

// One of many processes does the nightly work. What it writes goes through TransactHeld, so that a holder which was stopped beyond its
// time, and came back after another had taken over, changes nothing.
func ExampleLock() {
	ctx := context.Background()
	factory, _ := state.NewFactory([]state.StoreConfig{{Name: "jobs", Backend: "memory"}}, []state.Driver{memorystate.New()}, state.Options{})
	defer factory.Close()
	jobs, _ := state.Open[string](ctx, factory, "jobs")
	lock, err := state.OpenLock(ctx, factory, "jobs", "{nightly}", state.LockOptions{TTL: 10 * time.Second})
	if err != nil {
		log.Fatal(err)
	}

	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	hold, err := lock.Acquire(waiting)
	if err != nil {
		log.Fatal(err)
	}
	_, err = lock.TryAcquire(ctx)
	fmt.Println("another:", errors.Is(err, state.ErrLocked))

	work := hold.Context() // ends when the lock is lost
	_, err = jobs.TransactHeld(work, hold, []state.Op[string]{{Key: "{nightly}:report", Value: "42 swords sold"}})
	fmt.Println("written:", err == nil)

	fmt.Println(hold.Release(ctx))
	_, err = jobs.TransactHeld(ctx, hold, []state.Op[string]{{Key: "{nightly}:report", Value: "too late"}})
	fmt.Println("written after the release:", err == nil)
	// Output:
	// another: true
	// written: true
	// <nil>
	// written after the release: false
}

// What is kept in another store than the lock carries the token of who wrote it, and a smaller one is refused: the token of a holder that
// is late is smaller than that of the holder after it.
func ExampleHold_Token() {
	ctx := context.Background()
	factory, _ := state.NewFactory([]state.StoreConfig{{Name: "locks", Backend: "memory"}, {Name: "reports", Backend: "memory"}},
		[]state.Driver{memorystate.New()}, state.Options{})
	defer factory.Close()
	type report struct {
		Text  string
		Token int64 // of the hold that wrote it
	}
	reports, _ := state.Open[report](ctx, factory, "reports")
	write := func(text string, token int64) error {
		for {
			entry, err := reports.GetWithETag(ctx, "nightly")
			if err != nil && !errors.Is(err, state.ErrNotFound) {
				return err
			}
			if entry.Value.Token > token {
				return errors.New("a later holder has written")
			}
			if _, err = reports.TrySave(ctx, "nightly", report{text, token}, entry.ETag); !errors.Is(err, state.ErrConflict) {
				return err
			}
		}
	}

	lock, _ := state.OpenLock(ctx, factory, "locks", "nightly", state.LockOptions{})
	first, _ := lock.Acquire(ctx)
	first.Release(ctx) // or its time ended, and it did not notice
	second, _ := lock.Acquire(ctx)
	defer second.Release(ctx)
	fmt.Println(write("the second's", second.Token()))
	fmt.Println(write("the first's", first.Token()))
	// Output:
	// <nil>
	// a later holder has written
}
