package state

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"

	"github.com/go-json-experiment/json"
)

// MaxCursorBytes is how long a cursor may be. One is as long as the strings that its query is sorted by.
const MaxCursorBytes = 64 << 10

// cursorForm is the first byte of a cursor. Another form gets another one.
const cursorForm = 1

// digestBytes is how much of a SHA-256 stands in a cursor.
const digestBytes = 8

// encodeCursor writes a position as opaque text. A cursor says nothing that the value it was made of does not; it is
// checked, not signed: a forged one is a place in a query that its sender may ask anyway.
func encodeCursor(store string, q Query, p Position) (string, error) {
	content, err := json.Marshal(p, json.Deterministic(true))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	raw := append([]byte{cursorForm}, cursorDigest(store, q, content)...)
	text := base64.RawURLEncoding.EncodeToString(append(raw, content...))
	if len(text) > MaxCursorBytes {
		return "", &FilterError{Reason: fmt.Sprintf("a string that the query is sorted by is too long for a cursor, which has at most %d bytes; "+
			"sort by another member, or ask for pages by number", MaxCursorBytes)}
	}
	return text, nil
}

// decodeCursor reads what encodeCursor wrote for the same store, filter and sorts.
func decodeCursor(store string, q Query, text string) (*Position, error) {
	if len(text) > MaxCursorBytes {
		return nil, badCursor(fmt.Sprintf("it has more than %d bytes", MaxCursorBytes))
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) <= 1+digestBytes || raw[0] != cursorForm {
		return nil, badCursor("it is not one that a query returned")
	}
	digest, content := raw[1:1+digestBytes], raw[1+digestBytes:]
	if string(digest) != string(cursorDigest(store, q, content)) {
		return nil, badCursor("it is damaged, or of a query of another store, filter or sort")
	}
	p := new(Position)
	if err := json.Unmarshal(content, p); err != nil {
		return nil, badCursor("it is not one that a query returned")
	}
	if err := p.check(q.Sort); err != nil {
		return nil, badCursor("it is not one that a query returned")
	}
	return p, nil
}

// ErrCursor reports a cursor that is damaged or belongs to another query. It is ErrInvalid, too.
var ErrCursor = fmt.Errorf("%w: bad cursor", ErrInvalid)

func badCursor(reason string) error {
	return fmt.Errorf("%w: %s; begin anew without one", ErrCursor, reason)
}

// cursorDigest ties a cursor's content to its query.
func cursorDigest(store string, q Query, content []byte) []byte {
	h := sha256.New()
	writeText(h, store)
	writeClause(h, q.Filter.root)
	for _, s := range q.Sort {
		writeText(h, s.Field)
		writeCount(h, map[bool]int{true: 1}[s.Descending])
	}
	writeText(h, string(content))
	return h.Sum(nil)[:digestBytes]
}

func writeClause(h hash.Hash, c *Clause) {
	if c == nil {
		writeText(h, "")
		return
	}
	writeText(h, string(c.Op))
	writeCount(h, len(c.Path))
	for _, segment := range c.Path {
		writeText(h, segment)
	}
	writeCount(h, len(c.Operands))
	for _, o := range c.Operands {
		writeCount(h, int(o.Kind))
		writeText(h, o.Text)
	}
	writeCount(h, len(c.Clauses))
	for _, sub := range c.Clauses {
		writeClause(h, sub)
	}
}

func writeText(h hash.Hash, s string) {
	writeCount(h, len(s))
	h.Write([]byte(s))
}

func writeCount(h hash.Hash, n int) {
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
}
