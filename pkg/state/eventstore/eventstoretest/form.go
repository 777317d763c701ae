package eventstoretest

import (
	"encoding"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"
)

// sealedKind ends the kind of a member that is encrypted.
const sealedKind = ", personal"

// formOf lists the members that a type has in JSON, with the kind of each: "items.price": "number" in an array or an object alike, and "name": "string, personal".
func formOf(t reflect.Type) map[string]string {
	form := map[string]string{}
	addForm(form, "", t, map[reflect.Type]bool{})
	return form
}

func addForm(form map[string]string, path string, t reflect.Type, within map[reflect.Type]bool) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	kind := kindOf(t)
	if path != "" {
		form[path] = kind
	}
	if within[t] { // a type that contains itself
		return
	}
	within[t] = true
	defer delete(within, t)
	switch kind {
	case "array of values", "map of values":
		addForm(form, path+"[]", t.Elem(), within)
	case "object":
		for i := range t.NumField() {
			addMember(form, path, t.Field(i), within)
		}
	}
}

func addMember(form map[string]string, path string, f reflect.StructField, within map[reflect.Type]bool) {
	name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	inlined := f.Anonymous && name == "" || strings.Contains(options, "inline")
	switch {
	case name == "-", !f.IsExported() && !inlined:
		return
	case inlined:
		inner := f.Type
		for inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			for i := range inner.NumField() {
				addMember(form, path, inner.Field(i), within)
			}
		}
		return
	case name == "":
		name = f.Name
	}
	if path != "" {
		name = path + "." + name
	}
	if strings.Contains(options, "string") {
		form[name] = "string"
	} else {
		addForm(form, name, f.Type, within)
	}
	if f.Tag.Get("personal") == "data" {
		form[name] += sealedKind
	}
}

// kindOf is what a type is in JSON. A type that writes itself is known by its name.
func kindOf(t reflect.Type) string {
	for _, own := range []reflect.Type{
		reflect.TypeFor[json.Marshaler](), reflect.TypeFor[json.MarshalerTo](), reflect.TypeFor[encoding.TextMarshaler](),
	} {
		if t.Implements(own) || reflect.PointerTo(t).Implements(own) {
			return t.String()
		}
	}
	switch t.Kind() {
	case reflect.Bool:
		return "bool"
	case reflect.String:
		return "string"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return "base64"
		}
		return "array of values"
	case reflect.Map:
		return "map of values"
	case reflect.Struct:
		if t.PkgPath() == "time" { // Time and such, known to the encoder
			return t.String()
		}
		return "object"
	default:
		return "any"
	}
}
