package eventstore

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Types says which Go types events have, and brings old forms of them to the newest. It is safe for concurrent use.
type Types struct {
	byName map[string]*Type
	byGo   map[reflect.Type]*Type
	all    []*Type
}

// A Type is one type of event: its name, the version of the form that the program writes, and upcasters from each one before.
type Type struct {
	name      string
	schema    int
	goType    reflect.Type
	upcasters []Upcaster
	marking   marking
	upcast    map[int]func(jsontext.Value) (jsontext.Value, error) // by the schema that they begin with
}

// An Upcaster brings the data of an event from one schema to the next. It must not fail for data that was once appended.
type Upcaster struct {
	from int
	run  func(jsontext.Value) (jsontext.Value, error)
}

// TypeOf declares that events of that name have the Go type T, in the form of the version schema, from 1. Earlier versions need an upcaster each.
// Fields of T, and of structs in it, that are about a person have the tag `personal:"data"`: see Personal. One string may have the tag
// `personal:"subject"`, and names whom they are about. After Store.Erase they are null to upcasters, and zero in T.
func TypeOf[T any](name string, schema int, upcasters ...Upcaster) *Type {
	return &Type{name: name, schema: schema, goType: reflect.TypeFor[T](), upcasters: upcasters}
}

// Upcast is the upcaster from one version of an event's form to the one after it, in JSON.
func Upcast(from int, run func(data jsontext.Value) (jsontext.Value, error)) Upcaster {
	return Upcaster{from: from, run: run}
}

// Name is what events of the type have as their Type.
func (t *Type) Name() string { return t.name }

// Schema is the version of the form that the program writes.
func (t *Type) Schema() int { return t.schema }

// GoType is what Decode returns.
func (t *Type) GoType() reflect.Type { return t.goType }

// NewTypes checks that names and Go types are there once, and that there is an upcaster from each version to the next.
func NewTypes(types ...*Type) (*Types, error) {
	all := &Types{byName: map[string]*Type{}, byGo: map[reflect.Type]*Type{}, all: types}
	var errs []error
	for _, t := range types {
		if all.byName[t.name] != nil || all.byGo[t.goType] != nil {
			errs = append(errs, fmt.Errorf("event %q of type %s: its name or type is declared twice", t.name, t.goType))
		}
		all.byName[t.name], all.byGo[t.goType] = t, t
		errs = append(errs, t.check())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("eventstore: %w: %w", state.ErrInvalid, err)
	}
	return all, nil
}

func (t *Type) check() error {
	if t.name == "" || t.schema < 1 {
		return fmt.Errorf("event %q: it needs a name, and a schema from 1", t.name)
	}
	var err error
	if t.marking, err = markingOf(t.goType); err != nil {
		return fmt.Errorf("event %q: %w", t.name, err)
	}
	t.upcast = make(map[int]func(jsontext.Value) (jsontext.Value, error), len(t.upcasters))
	for _, u := range t.upcasters {
		if u.from < 1 || u.from >= t.schema || t.upcast[u.from] != nil || u.run == nil {
			return fmt.Errorf("event %q: the upcaster from schema %d is one too many: one leads from each of 1 to %d to the next", t.name, u.from, t.schema-1)
		}
		t.upcast[u.from] = u.run
	}
	for from := 1; from < t.schema; from++ {
		if t.upcast[from] == nil {
			return fmt.Errorf("event %q has schema %d, and no upcaster leads from %d to %d: events with that form could not be read", t.name, t.schema, from, from+1)
		}
	}
	return nil
}

// All returns the types in the order in which they were declared.
func (t *Types) All() []*Type { return t.all }

// Event makes an event of a value of one of the types.
func (t *Types) Event(value any) (Event, error) {
	kind := t.byGo[reflect.TypeOf(value)]
	if kind == nil {
		return Event{}, fmt.Errorf("eventstore: %w: no event has the type %T; declare it with TypeOf", state.ErrInvalid, value)
	}
	data, err := json.Marshal(value)
	if err != nil {
		return Event{}, fmt.Errorf("eventstore: %w: event %q: %w", state.ErrInvalid, kind.name, err)
	}
	e := Event{Type: kind.name, Schema: kind.schema, Data: data}
	if len(kind.marking.members) > 0 {
		e.Personal = kind.marking.personal(value)
	}
	return e, nil
}

// ErrUnknownType reports an event that this program has no type for, or a newer form of it. It is not state.ErrCorrupt: another program may
// know it.
var ErrUnknownType = errors.New("unknown type of event")

// Decode returns the event as a value of the Go type of its name, brought to the newest form. ErrUnknownType: there is none. state.ErrCorrupt:
// its data does not fit.
func (t *Types) Decode(e Recorded) (any, error) {
	kind := t.byName[e.Type]
	if kind == nil {
		return nil, e.error(fmt.Errorf("%w %q", ErrUnknownType, e.Type))
	}
	value, err := kind.decode(e.Schema, e.Data)
	if err != nil {
		return nil, e.error(err)
	}
	return value, nil
}

func (e *Recorded) error(err error) error {
	return fmt.Errorf("eventstore: version %d of stream %s, position %d: %w", e.Version, e.Stream, e.Position, err)
}

func (t *Type) decode(schema int, data jsontext.Value) (any, error) {
	if schema > t.schema {
		return nil, fmt.Errorf("%w: %q has schema %d, and this program knows it up to %d; use a newer one", ErrUnknownType, t.name, schema, t.schema)
	}
	for ; schema < t.schema; schema++ {
		var err error
		if data, err = t.upcast[schema](data); err != nil {
			return nil, fmt.Errorf("%w: %q cannot be brought from schema %d to %d: %w", state.ErrCorrupt, t.name, schema, schema+1, err)
		}
	}
	into := reflect.New(t.goType)
	if err := json.Unmarshal(data, into.Interface()); err != nil {
		return nil, fmt.Errorf("%w: %q does not fit %s: %w", state.ErrCorrupt, t.name, t.goType, err)
	}
	return into.Elem().Interface(), nil
}
