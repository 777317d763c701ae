package eventstore

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// personalTag marks fields of events' Go types: `personal:"data"` what is about a person, `personal:"subject"` the text that names whom.
const personalTag = "personal"

// A marking is what the tags of a Go type say.
type marking struct {
	members []jsontext.Pointer
	subject []int // of a field, as reflect.Value.FieldByIndex takes it; nil: the stream is the subject
}

// markingOf reads the tags of a type and of the structs in it. Within lists and maps there can be none: the member that has the list is marked.
func markingOf(t reflect.Type) (m marking, err error) {
	err = m.read(t, "", nil, nil)
	return m, err
}

func (m *marking) read(t reflect.Type, at jsontext.Pointer, index []int, within []reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || slices.Contains(within, t) {
		return nil
	}
	within = append(slices.Clone(within), t)
	for i := range t.NumField() {
		f := t.Field(i)
		name, inlined := jsonName(f)
		if name == "" && !inlined {
			continue
		}
		place, of := at, append(slices.Clone(index), i)
		if !inlined {
			place = at.AppendToken(name)
		}
		switch tag := f.Tag.Get(personalTag); {
		case tag == "data":
			m.members = append(m.members, place)
			continue
		case tag == "subject" && f.Type.Kind() == reflect.String && m.subject == nil:
			m.subject = of
			continue
		case tag != "":
			return fmt.Errorf(`field %s of %s has the tag personal:%q: it is "data", or for one string of the type "subject"`, f.Name, t, tag)
		}
		if err := m.read(f.Type, place, of, within); err != nil {
			return err
		}
		if e := elementOf(f.Type); e != nil {
			var inner marking
			if err := inner.read(e, "", nil, within); err != nil {
				return err
			}
			if len(inner.members) > 0 || inner.subject != nil {
				return fmt.Errorf(`field %s of %s is a list or map of what has tags personal: mark the field itself with personal:"data"`, f.Name, t)
			}
		}
	}
	return nil
}

// jsonName is the member that a field is, "" for none; an embedded struct without a name has its members in the one around it.
func jsonName(f reflect.StructField) (name string, inlined bool) {
	tag := f.Tag.Get("json")
	name, options, _ := strings.Cut(tag, ",")
	switch {
	case tag == "-" || !f.IsExported() && !f.Anonymous:
		return "", false
	case name == "" && (f.Anonymous || slices.Contains(strings.Split(options, ","), "inline")):
		return "", true
	case name == "":
		return f.Name, false
	default:
		return name, false
	}
}

func elementOf(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map:
		e := t.Elem()
		for e.Kind() == reflect.Pointer {
			e = e.Elem()
		}
		if e.Kind() == reflect.Slice || e.Kind() == reflect.Array || e.Kind() == reflect.Map {
			return elementOf(e)
		}
		return e
	default:
		return nil
	}
}

// personal is what the tags say of one value.
func (m *marking) personal(value any) Personal {
	p := Personal{Members: m.members}
	if m.subject == nil {
		return p
	}
	v := reflect.ValueOf(value)
	for _, i := range m.subject {
		for v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return p
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	p.Subject = v.String()
	return p
}
