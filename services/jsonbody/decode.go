package jsonbody

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"

	"github.com/bannou-mesh/bannou/services/problem"
)

// WriteDecodeError answers a request whose checked body the generated decoder could not fit into its type. It has the
// shape of a generated server's RequestErrorHandlerFunc.
func WriteDecodeError(w http.ResponseWriter, _ *http.Request, err error) {
	problem.Write(w, DecodeError(err))
}

// WriteError answers with the problem that a handler returned. It has the shape of a generated server's
// ResponseErrorHandlerFunc.
func WriteError(w http.ResponseWriter, _ *http.Request, err error) {
	problem.Write(w, err)
}

// DecodeError names the member whose type is wrong in an error of encoding/json.
func DecodeError(err error) *problem.Problem {
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return problem.New(problem.InvalidJSON, "the body cannot be read: %v", err).Because(err)
	}
	if wrong.Field == "" {
		return problem.New(problem.InvalidJSON, "the body has to be one JSON object").Because(err)
	}
	kind, _, _ := strings.Cut(wrong.Value, " ") // "number 1.5" is a number
	if wrong.Value != kind && isInteger(wrong.Type) {
		return problem.Invalid(wrong.Field, "has to be %s, and is %s", described(wrong.Type), wrong.Value).Because(err)
	}
	return problem.Invalid(wrong.Field, "has to be %s, and is or holds %s", described(wrong.Type), article(kind)).
		Because(err)
}

func isInteger(t reflect.Type) bool {
	return t != nil && t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64
}

// described is a Go type in the words of JSON.
func described(t reflect.Type) string {
	if t == nil {
		return "of another type"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Pointer:
		return described(t.Elem())
	default:
		if isInteger(t) {
			return "an integer"
		}
		return "of another type"
	}
}

func article(kind string) string {
	switch kind {
	case "array", "object":
		return "an " + kind
	case "bool":
		return "true or false"
	default:
		return "a " + kind
	}
}
