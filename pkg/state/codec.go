package state

import (
	stdjson "encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Opaque is a value that a store keeps and returns as it is, byte for byte, without a look whether it is JSON: for rows that are shared with
// programs which keep other things there. Of the drivers memory and Redis keep any bytes; SQL engines refuse what is not JSON.
type Opaque []byte

// encode returns the JSON to store for v. Raw JSON is checked and passed through byte for byte.
func encode[T any](v T) ([]byte, error) {
	data, raw := rawJSON(v)
	if opaque, is := any(v).(Opaque); is {
		data = opaque
	} else if raw {
		if err := checkJSON(data); err != nil {
			return nil, fmt.Errorf("%w: the value is not JSON: %w", ErrInvalid, err)
		}
	} else {
		var err error
		if data, err = json.Marshal(v); err != nil {
			return nil, fmt.Errorf("%w: the value cannot be written as JSON: %w", ErrInvalid, err)
		}
	}
	if len(data) > MaxValueBytes {
		return nil, fmt.Errorf("%w: %d bytes of JSON, at most %d are kept under one key", ErrTooLarge, len(data), MaxValueBytes)
	}
	return data, nil
}

// decode reads what encode wrote.
func decode[T any](data []byte) (T, error) {
	var v T
	var err error
	switch p := any(&v).(type) {
	case *Opaque:
		*p = data
	case *jsontext.Value:
		*p, err = data, checkJSON(data)
	case *stdjson.RawMessage:
		*p, err = data, checkJSON(data)
	default:
		err = json.Unmarshal(data, &v)
	}
	if err != nil {
		var zero T
		return zero, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return v, nil
}

// rawJSON returns v's bytes if T is a type that holds JSON as it is written.
func rawJSON[T any](v T) ([]byte, bool) {
	switch raw := any(v).(type) {
	case jsontext.Value:
		return raw, true
	case stdjson.RawMessage:
		return raw, true
	default:
		return nil, false
	}
}

// checkJSON accepts exactly one JSON value without duplicate names and invalid UTF-8 (RFC 7493), and does not interpret
// numbers.
func checkJSON(data []byte) error {
	if jsontext.Value(data).IsValid() {
		return nil
	}
	var v jsontext.Value // says where and why
	return json.Unmarshal(data, &v)
}

func checkKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("%w: the key is empty", ErrInvalid)
	case len(key) > MaxKeyBytes:
		return fmt.Errorf("%w: the key has %d bytes, at most %d are allowed", ErrInvalid, len(key), MaxKeyBytes)
	case !utf8.ValidString(key):
		return fmt.Errorf("%w: the key %q is not valid UTF-8", ErrInvalid, key)
	case strings.IndexByte(key, 0) >= 0:
		return fmt.Errorf("%w: the key %q contains a NUL", ErrInvalid, key)
	default:
		return nil
	}
}

// checkKeys checks each key of a bulk call and their number.
func checkKeys(keys []string) error {
	if len(keys) > MaxBulkKeys {
		return fmt.Errorf("%w: %d keys in one call, at most %d are allowed", ErrInvalid, len(keys), MaxBulkKeys)
	}
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return err
		}
	}
	return nil
}

// checkDistinct refuses a key that is changed twice in one call: which change came last would depend on the engine.
func checkDistinct(changes []Change) error {
	seen := make(map[string]struct{}, len(changes))
	for i := range changes {
		key := changes[i].Key
		if _, ok := seen[key]; ok {
			return fmt.Errorf("%w: the key %q appears twice in one call", ErrInvalid, key)
		}
		seen[key] = struct{}{}
	}
	return nil
}
