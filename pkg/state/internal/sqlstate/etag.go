package sqlstate

import (
	"bytes"
	"crypto/rand"

	"github.com/go-json-experiment/json/jsontext"
)

// NewETag returns an ETag that was never used before: 26 random characters, 130 bits. It does not follow from the
// content, so that equal values written twice have different ETags.
func NewETag() string { return rand.Text() }

// PlainEscapes rewrites the strings and member names of a JSON value so that only what must be escaped is. MariaDB
// finds a member by its name as it is written, so that "\u0041" and "A" would be different members. Everything else,
// numbers and the order of members among it, stays as it is.
func PlainEscapes(value []byte) []byte {
	if bytes.IndexByte(value, '\\') < 0 {
		return value
	}
	plain := jsontext.Value(bytes.Clone(value))
	if err := plain.Format(jsontext.PreserveRawStrings(false), jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false)); err != nil {
		return value // not JSON: the engine's own check refuses it
	}
	return plain
}
