package eventstore

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// ErrLeaseLost reports a part of a subscription that another consumer has taken. Nothing was changed.
var ErrLeaseLost = errors.New("another consumer has taken this part of the subscription")

// ErrSetBack reports events that were read and are not in the log any more. Nothing was changed. A database shows what is committed a moment before it is on
// disk, and loses what was not there yet when it is killed: other events may take the positions.
var ErrSetBack = errors.New("the log was set back: events that were read are not in it any more")

// Marks keep how far subscriptions are, who is at it, and which streams are set aside. They are a part of an Engine. Instants are by the
// engine's clock. A change that a Lease makes is refused with ErrLeaseLost when the part has another token by now, in one step with the change.
type Marks interface {
	// Transactional reports whether Advance and Replayed take a function.
	Transactional() bool

	// Enlist says that a consumer of a subscription lives for so long, and returns how many do, this one included.
	Enlist(ctx context.Context, name, consumer string, lives time.Duration) (consumers int, err error)
	// Retire says that it does no longer.
	Retire(ctx context.Context, name, consumer string) error

	// Claim takes a part that no other consumer has a lease of. One that is new begins at c.From.
	Claim(ctx context.Context, c Claim) (lease Lease, claimed bool, err error)
	// Renew prolongs the lease.
	Renew(ctx context.Context, l Lease) error
	// Advance enters that everything up to a position is handled, and prolongs the lease. ErrSetBack: the log does not have what was read, which is looked at in the
	// same step; an engine that never loses what it has shown need not look. ErrLeaseLost also where the part is not at the position that was entered before.
	// What within does in the transaction is done with it or not at all; nil: nothing. Its error is returned as it is, or as the engine's where it is of the database.
	Advance(ctx context.Context, l Lease, to Advance, within func(tx *sql.Tx) error) error
	// Yield ends the lease, so that others need not wait for its end.
	Yield(ctx context.Context, l Lease) error
	// Marks returns the parts of a subscription in their order.
	Marks(ctx context.Context, name string) ([]Mark, error)

	// Park sets a stream aside, or says more of one that is. ErrSetBack: the log does not have the event.
	Park(ctx context.Context, l Lease, p Parked) error
	// Parked returns the streams of a subscription that are set aside, in the order in which they were.
	Parked(ctx context.Context, name string) ([]Parked, error)
	// Unpark asks the consumer of a stream's part to go on with it, and behind the event that it stopped at if that is to be skipped. False: it
	// is not parked.
	Unpark(ctx context.Context, name string, stream StreamID, skip bool) (bool, error)
	// Replayed enters that a released stream is handled up to below a version, or, when it is done, is set aside no longer. Within is as in Advance.
	Replayed(ctx context.Context, l Lease, stream StreamID, next int64, done bool, within func(tx *sql.Tx) error) error
}

// A Claim asks for a part of a subscription.
type Claim struct {
	Name        string
	Part, Parts int // part of so many, from 0
	From        int64
	Consumer    string
	Lives       time.Duration // how long the lease lasts when it is not prolonged
}

// A Lease is a part that a consumer has.
type Lease struct {
	Name     string
	Part     int
	Token    int64 // greater than that of every lease of the part before
	Position int64 // up to which everything was handled when it was claimed
	Sure     int64 // position of the log up to which nothing is lost any more: with the claim all before it was on disk
	Lives    time.Duration
}

// An Advance says to where a part goes, and what it has read on the way. Positions of a stream's subscription are versions.
type Advance struct {
	Entered  int64 // the position that was entered before
	Position int64

	// Read are the events of the scope behind After, up to the last of them, that the log must have: these and no others. Empty: nothing is to be looked at.
	Read  []Place
	After int64
	Scope Range // its category and id
}

// A Place is where an event was read.
type Place struct {
	At int64 // the position, of a stream's subscription the version
	ID string
}

// A Mark tells of one part of a subscription.
type Mark struct {
	Part, Parts int
	Position    int64     // up to which everything is handled, or set aside; of a stream's subscription its version
	Consumer    string    // who has the lease; empty: nobody
	Until       time.Time // the end of the lease
}

// A Parked stream is set aside in one subscription, because an event of it could not be handled.
type Parked struct {
	Stream   StreamID
	Part     int
	Version  int64     // of that event; it and what follows it in the stream is still to be handled
	EventID  string    // of that event; only for Park
	Failure  string    // what the handler said last
	At       time.Time // since when
	Released bool      // the stream's consumer is to go on with it
}
