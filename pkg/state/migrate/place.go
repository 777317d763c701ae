package migrate

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A Place is where a store is kept: a store of a driver. What the store's configuration leaves open has the usual defaults; its
// Backend is the driver's.
type Place struct {
	Driver state.Driver
	Store  state.StoreConfig
}

// String is how people name it: redis:auth.
func (p Place) String() string { return p.Driver.Backend() + ":" + p.Store.Name }

// ErrSamePlace reports a migration of a store to where it is.
var ErrSamePlace = errors.New("both are the same place")

// A side is one place of a migration, opened: the store itself, and beside it the notes of the migration, in a store of their own
// whose keys never meet those of others.
type side struct {
	role   string // "from" or "to": both sides may keep their notes in one place
	name   string // redis:auth
	where  string // what tells it from other places of the backend
	engine state.Scanner

	factory *state.Factory // of the notes alone; its driver belongs to others, so it is never closed
	notes   string         // name of the store of the notes
	records *state.Store[record]
	dirt    *state.Store[dirt]
	runners *state.Store[Runner]
	marks   *state.Store[checkpoint]
	lists   *state.Store[[]string] // intents
	walk    state.Scanner          // over the notes
}

// openSide opens a place. The notes are named for the store that is migrated.
func openSide(ctx context.Context, p Place, role, store string) (*side, error) {
	s := &side{role: role, name: p.String()}
	engine, cfg, err := openEngine(ctx, p)
	if err != nil {
		return nil, err
	}
	s.engine = engine
	switch p.Driver.Backend() {
	case "redis":
		s.where = s.name + " under " + cfg.KeyPrefix
	case "memory":
		s.where = s.name
	default:
		s.where = s.name + " in " + cfg.TableName
	}
	notes := Place{Driver: p.Driver, Store: notesConfig(store)}
	s.notes = notes.Store.Name
	if s.walk, cfg, err = openEngine(ctx, notes); err != nil {
		return nil, err
	}
	if s.factory, err = state.NewFactory([]state.StoreConfig{cfg}, []state.Driver{p.Driver}, state.Options{}); err != nil {
		return nil, err
	}
	if s.records, err = state.Open[record](ctx, s.factory, s.notes); err != nil {
		return nil, err
	}
	if s.dirt, err = state.Open[dirt](ctx, s.factory, s.notes); err != nil {
		return nil, err
	}
	if s.runners, err = state.Open[Runner](ctx, s.factory, s.notes); err != nil {
		return nil, err
	}
	if s.marks, err = state.Open[checkpoint](ctx, s.factory, s.notes); err != nil {
		return nil, err
	}
	s.lists, err = state.Open[[]string](ctx, s.factory, s.notes)
	return s, err
}

// notesConfig is the store of a migration's notes: on SQL in a table of their own.
func notesConfig(store string) state.StoreConfig {
	const most = 64
	name := "migration-" + store
	if len(name) > most {
		sum := sha256.Sum256([]byte(store))
		name = fmt.Sprintf("%s-%x", name[:most-17], sum[:8])
	}
	return state.StoreConfig{Name: name, KeyPrefix: "bannou-" + name, TableName: "state_migrations"}
}

// openEngine opens a place's engine past the factory that serves it, with the configuration that it would have there.
func openEngine(ctx context.Context, p Place) (state.Scanner, state.StoreConfig, error) {
	cfg := p.Store
	cfg.Backend = p.Driver.Backend()
	f, err := state.NewFactory([]state.StoreConfig{cfg}, []state.Driver{p.Driver}, state.Options{})
	if err != nil {
		return nil, cfg, err
	}
	cfg = f.Stores()[0]
	engine, err := p.Driver.Open(ctx, cfg)
	if err != nil {
		return nil, cfg, fmt.Errorf("open %s: %w", p, err)
	}
	walked, ok := engine.(state.Scanner)
	if !ok {
		return nil, cfg, fmt.Errorf("%w: the keys of %s cannot be walked", state.ErrUnsupported, p)
	}
	return walked, cfg, nil
}

// openSides opens both places of a migration.
func openSides(ctx context.Context, from, to Place) (old, young *side, err error) {
	if old, err = openSide(ctx, from, "from", from.Store.Name); err != nil {
		return nil, nil, err
	}
	if young, err = openSide(ctx, to, "to", from.Store.Name); err != nil {
		return nil, nil, err
	}
	if from.Driver == to.Driver && old.where == young.where {
		return nil, nil, fmt.Errorf("%w: %s; name another backend, key prefix or table", ErrSamePlace, old.where)
	}
	return old, young, nil
}

// noteTimeout bounds the reading and writing of a note.
const noteTimeout = 5 * time.Second
