package sqlstate

import (
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// PlainNames rewrites the member names of a JSON value so that only what must be escaped is. MariaDB finds a member by
// its name as it is written, so that "\u0041" and "A" would be different members. All else stays byte for byte.
func PlainNames(value []byte) []byte {
	if bytes.IndexByte(value, '\\') < 0 {
		return value
	}
	dec := jsontext.NewDecoder(bytes.NewReader(value))
	var plain []byte
	copied := 0
	for {
		in, n := dec.StackIndex(dec.StackDepth())
		if in != '{' || n%2 != 0 || dec.PeekKind() != '"' {
			_, err := dec.ReadToken()
			if errors.Is(err, io.EOF) {
				return append(plain, value[copied:]...)
			}
			if err != nil {
				return value // not JSON: the engine's own check refuses it
			}
			continue
		}
		name, err := dec.ReadValue()
		if err != nil {
			return value
		}
		if bytes.IndexByte(name, '\\') < 0 {
			continue
		}
		end := int(dec.InputOffset())
		plain = append(plain, value[copied:end-len(name)]...)
		if text, err := jsontext.AppendUnquote(nil, name); err == nil {
			name, err = jsontext.AppendQuote(nil, text)
			if err != nil {
				return value
			}
		}
		plain = append(plain, name...)
		copied = end
	}
}
