package eventstore

import (
	"context"
	"database/sql"
)

// Projections are what an Engine does for package projection: it keeps an entry for each projection, which that package makes, and has
// projections changed in the same step as the log, or as that entry. They are a part of an Engine.
type Projections interface {
	// Projections returns the entries by name: the one of that name, or with none all.
	Projections(ctx context.Context, name string) (map[string][]byte, error)

	// ChangeProjection replaces an entry by what fn makes of it, nil if there is none, and makes what fn does with w in the same step. Nobody else
	// changes the entry, or has it by Within.Projection, meanwhile. When fn returns nil there is no entry any more. An error of fn is returned as it
	// is, and nothing was changed. fn may be called again, and must not use the log otherwise.
	ChangeProjection(ctx context.Context, name string, fn func(w Within, current []byte) (changed []byte, err error)) error

	// Inline has fn called in each append of this process, behind its events and in the same step. Its error is that of the append, which is
	// not made then. Nil ends that.
	Inline(fn func(ctx context.Context, w Within) error)

	// Within is for who was given a transaction by Advance or Replayed.
	Within(tx *sql.Tx) Within

	// Define makes statements that are no part of a transaction, such as those that make tables.
	Define(ctx context.Context, statements ...string) error
}

// Within is a step of an engine, while it is made.
type Within interface {
	// Tx is the step's transaction. Nil: it is one of an engine in memory.
	Tx() *sql.Tx

	// Projection returns an entry, which nobody changes before the step is made. Nil: there is none.
	Projection(ctx context.Context, name string) ([]byte, error)

	// Read is Engine.Read, with what the step has appended, and as SubjectKeys within the step.
	Read(ctx context.Context, r Range) (events []Recorded, more bool, err error)

	// SubjectKeys is Keys.SubjectKeys, within the step: it needs nothing that another step may have, such as a connection.
	SubjectKeys(ctx context.Context, ids []string) ([]SubjectKey, error)

	// Destroyed is Keys.Destroyed, within the step.
	Destroyed(ctx context.Context) (int64, error)

	// Position returns how far the subscription of that name, with one partition, is. Nobody changes that before the step is made. False: it has not
	// begun.
	Position(ctx context.Context, subscription string) (position int64, begun bool, err error)

	// Seize enters how far the subscription is. Who has a lease of it loses that.
	Seize(ctx context.Context, subscription string, position int64) error

	// Parked returns how many streams are set aside in the subscription.
	Parked(ctx context.Context, subscription string) (int, error)

	// Forget removes everything that is kept of a subscription.
	Forget(ctx context.Context, subscription string) error
}
