package eventstoretest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// Golden checks types of events against what was published of them, and fails when a program could no longer read that. The folder has, for
// each version of each type,
//
//   - {name}.v{n}.json: data of an event as it was appended with that version, and what is read of it today;
//   - {name}.v{n}.form.json: the members that the Go type had.
//
// A version that was never published gets its files with update, which is a flag of the test, from a sample: a value of the type. Then they
// are committed, and stay. Members may be added to a published version. One that is gone, of another kind, or not personal any more (see
// [eventstore.Personal]) asks for the next version and an upcaster, which NewTypes does not do without.
func Golden(t testing.TB, types *eventstore.Types, folder string, update bool, samples ...any) {
	t.Helper()
	require.NoError(t, CheckGolden(types, folder, update, samples...))
}

// CheckGolden is Golden with an error, which names every type and version that is wrong.
func CheckGolden(types *eventstore.Types, folder string, update bool, samples ...any) error {
	bySample := map[reflect.Type]any{}
	for _, s := range samples {
		bySample[reflect.TypeOf(s)] = s
	}
	var errs []error
	for _, t := range types.All() {
		g := golden{types: types, kind: t, folder: folder, update: update, sample: bySample[t.GoType()]}
		for schema := 1; schema <= t.Schema(); schema++ {
			if err := g.event(schema); err != nil {
				errs = append(errs, fmt.Errorf("event %q, schema %d: %w", t.Name(), schema, err))
			}
		}
		if err := g.form(); err != nil {
			errs = append(errs, fmt.Errorf("event %q, schema %d: %w", t.Name(), t.Schema(), err))
		}
	}
	return errors.Join(errs...)
}

type golden struct {
	types  *eventstore.Types
	kind   *eventstore.Type
	folder string
	update bool
	sample any
}

// published is what a golden file has of an event.
type published struct {
	Data jsontext.Value `json:"data"` // as it was appended
	Read jsontext.Value `json:"read"` // as the program of today reads it
}

func (g golden) path(schema int, kind string) string {
	return filepath.Join(g.folder, fmt.Sprintf("%s.v%d%s.json", g.kind.Name(), schema, kind))
}

// event reads what was published.
func (g golden) event(schema int) error {
	var p published
	switch err := load(g.path(schema, ""), &p); {
	case err == nil:
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case !g.update:
		return fmt.Errorf("%s is missing; run the test with its update flag, and commit what it writes", g.path(schema, ""))
	case schema < g.kind.Schema():
		return fmt.Errorf("%s is missing, and the form of that time is gone: bring the file back", g.path(schema, ""))
	case g.sample == nil:
		return fmt.Errorf("no sample of %s was given", g.kind.GoType())
	default:
		e, err := g.types.Event(g.sample)
		if err != nil {
			return err
		}
		p.Data = e.Data
	}
	value, err := g.types.Decode(eventstore.Recorded{Event: eventstore.Event{Type: g.kind.Name(), Schema: schema, Data: p.Data}})
	if err != nil {
		return err
	}
	read, err := json.Marshal(value, json.Deterministic(true))
	if err != nil {
		return err
	}
	if g.update {
		p.Read = read
		return save(g.path(schema, ""), p)
	}
	if same, err := equal(p.Read, read); err != nil || !same {
		return errors.Join(err, fmt.Errorf("what was published is read as %s, and was read as %s; if that is meant, run the test with its update flag", read, p.Read))
	}
	return nil
}

// form compares the members of the Go type with those that were published.
func (g golden) form() error {
	now := formOf(g.kind.GoType())
	var then map[string]string
	path := g.path(g.kind.Schema(), ".form")
	switch err := load(path, &then); {
	case err == nil:
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case !g.update:
		return fmt.Errorf("%s is missing; run the test with its update flag, and commit what it writes", path)
	}
	for member, kind := range then {
		if is := now[member]; is != kind && is != kind+sealedKind {
			if is == "" {
				is = "gone"
			}
			return fmt.Errorf("member %q was published as %s and is %s: raise the schema to %d, with an upcaster from %d",
				member, kind, is, g.kind.Schema()+1, g.kind.Schema())
		}
	}
	if g.update {
		return save(path, now)
	}
	for member, kind := range now {
		if then[member] != kind {
			return fmt.Errorf("member %q is new, or personal from now on, which is compatible; run the test with its update flag, and commit what it writes", member)
		}
	}
	return nil
}

func equal(a, b jsontext.Value) (bool, error) {
	a, b = a.Clone(), b.Clone()
	if err := errors.Join(a.Canonicalize(), b.Canonicalize()); err != nil {
		return false, err
	}
	return string(a) == string(b), nil
}

func load(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func save(path string, value any) error {
	text, err := json.Marshal(value, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600)
}
