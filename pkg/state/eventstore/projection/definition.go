package projection

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// A Definition is how a projection is made. A program may define several revisions of one name: each version is followed with the
// revision that it was begun with.
type Definition struct {
	// Name is what readers ask for: lower-case letters, digits and underscores, with a letter first, 1 to 40 bytes. Required.
	Name string

	// Revision is that of Apply and of the form of what it makes. Raise it when they change, and rebuild: a version that is there goes on with the
	// revision that it has, as long as a program defines that. Default: 1.
	Revision int

	// Category is that of the events. Default: all.
	Category string

	// Inline has the projection changed in the transaction of each append, by the processes that have this definition. What others append it has a
	// moment later. It is for few and small changes: appends wait for them, and fail with them. A version is inline once it has caught up. Not
	// with Into. An append of more than 4 MiB is applied in several batches of its transaction.
	Inline bool

	// Tables are those of the log's database that a version has. They are made before Apply is first called.
	Tables []Table

	// Apply changes the projection for some events, in their order. With a transaction it may be called again from its beginning. An event that it
	// fails for, alone, five times parks its stream, as with a subscription. One of Apply and Into is required.
	Apply func(ctx context.Context, b Batch) error

	// Into keeps the projection in a state store: see Keyed.
	Into Target

	// Batch is how many events Apply is given at most. Default: 5000.
	Batch int
}

// A Table is one that each version of a projection has, named Name_v and the version's number.
type Table struct {
	Name    string // lower-case letters, digits and underscores, with a letter first, 1 to 40 bytes
	Columns string // what follows the name in CREATE TABLE
}

// A Batch is what is to be applied.
type Batch struct {
	Version Version
	Tx      *sql.Tx // of the log's database; nil: the engine is in memory
	Events  []eventstore.Recorded
}

// A Version is one of a projection. It names what that has.
type Version struct {
	Projection string
	Number     int // from 1; a number is not used twice
}

// String is "name@2".
func (v Version) String() string { return v.Projection + "@" + strconv.Itoa(v.Number) }

// Table is the name of the version's table of that name in the definition.
func (v Version) Table(name string) string { return name + "_v" + strconv.Itoa(v.Number) }

// Key is the version's key of that name in a state store.
func (v Version) Key(key string) string { return v.String() + ":" + key }

// Subscription is the name under which the version follows the log: for Store.Marks, Parked and Unpark.
func (v Version) Subscription() string { return "projection:" + v.String() }

// A Target keeps a projection somewhere else than in the log's database.
type Target interface {
	apply(ctx context.Context, b Batch) error
	drop(ctx context.Context, log *eventstore.Store, category string, v Version) error
}

var names = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

func (d *Definition) complete(transactional bool) error {
	switch {
	case !names.MatchString(d.Name):
		return fmt.Errorf("%w: the name of a projection has 1 to 40 lower-case letters, digits and underscores, with a letter first", state.ErrInvalid)
	case (d.Apply == nil) == (d.Into == nil):
		return fmt.Errorf("%w: it needs one of Apply and Into", state.ErrInvalid)
	case d.Inline && d.Into != nil, d.Tables != nil && d.Into != nil:
		return fmt.Errorf("%w: what is kept in a state store is not inline, and has no tables", state.ErrInvalid)
	case d.Tables != nil && !transactional:
		return fmt.Errorf("%w: this engine has no tables", state.ErrUnsupported)
	case d.Revision < 0 || d.Batch < 0:
		return fmt.Errorf("%w: its numbers are not negative", state.ErrInvalid)
	}
	for _, t := range d.Tables {
		if !names.MatchString(t.Name) || strings.TrimSpace(t.Columns) == "" {
			return fmt.Errorf("%w: table %q: its name is like that of a projection, and it has columns", state.ErrInvalid, t.Name)
		}
	}
	if d.Revision == 0 {
		d.Revision = 1
	}
	if d.Batch == 0 {
		d.Batch = 5000
	}
	return nil
}

// inTransaction reports whether what Apply does is undone with the transaction.
func (d *Definition) inTransaction() bool { return d.Into == nil }

// apply has events applied, Batch at once. That it panics is a failure like another.
func (d *Definition) apply(ctx context.Context, b Batch) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("projection %s panicked: %v", b.Version, r)
		}
	}()
	apply := d.Apply
	if d.Into != nil {
		apply = d.Into.apply
	}
	for events := b.Events; len(events) > 0; {
		b.Events = events[:min(len(events), d.Batch)]
		events = events[len(b.Events):]
		if err := apply(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// define makes the tables of a version.
func (d *Definition) define(ctx context.Context, engine eventstore.Engine, v Version) error {
	for _, t := range d.Tables {
		if err := engine.Define(ctx, "CREATE TABLE IF NOT EXISTS "+v.Table(t.Name)+" "+t.Columns); err != nil {
			return fmt.Errorf("table %s: %w", v.Table(t.Name), err)
		}
	}
	return nil
}
