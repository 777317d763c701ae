package eventstore

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A replacing is a pass over JSON that puts other values in the place of some.
type replacing struct {
	decoder *jsontext.Decoder
	whole   []jsontext.Pointer // objects and arrays that with is asked about, and that are not gone into
	with    func(at jsontext.Pointer, value jsontext.Value) ([]byte, error)

	data   jsontext.Value
	out    []byte
	copied int64 // how much of data is in out
}

// replace asks with about each value of data that is no object or array, and about those at the places of whole, what is to stand there; nil is
// what there is. All else stays byte for byte.
func replace(data jsontext.Value, whole []jsontext.Pointer, with func(at jsontext.Pointer, value jsontext.Value) ([]byte, error)) (jsontext.Value, error) {
	r := replacing{decoder: jsontext.NewDecoder(bytes.NewReader(data)), whole: whole, with: with, data: data}
	if err := r.value(""); err != nil {
		return nil, err
	}
	return append(r.out, data[r.copied:]...), nil
}

func (r *replacing) value(at jsontext.Pointer) error {
	kind := r.decoder.PeekKind()
	if kind != '{' && kind != '[' || slices.Contains(r.whole, at) {
		return r.one(at)
	}
	if _, err := r.token(); err != nil {
		return err
	}
	for i := 0; ; i++ {
		name := strconv.Itoa(i)
		switch r.decoder.PeekKind() {
		case '}', ']':
			_, err := r.token()
			return err
		}
		if kind == '{' {
			token, err := r.token()
			if err != nil {
				return err
			}
			name = token.String()
		}
		if err := r.value(at.AppendToken(name)); err != nil {
			return err
		}
	}
}

func (r *replacing) one(at jsontext.Pointer) error {
	value, err := r.decoder.ReadValue()
	if err != nil {
		return fmt.Errorf("%w: %w", state.ErrCorrupt, err)
	}
	end := r.decoder.InputOffset()
	replacement, err := r.with(at, value)
	if err != nil || replacement == nil {
		return err
	}
	r.out = append(append(r.out, r.data[r.copied:end-int64(len(value))]...), replacement...)
	r.copied = end
	return nil
}

func (r *replacing) token() (jsontext.Token, error) {
	token, err := r.decoder.ReadToken()
	if err != nil {
		return token, fmt.Errorf("%w: %w", state.ErrCorrupt, err)
	}
	return token, nil
}
