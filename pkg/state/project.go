package state

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// A projection is a tree of the members that a query keeps; a leaf keeps everything below it. It is nil when whole values
// are asked for.
//
// Values are cut here and not by the engine: MySQL rounds the numbers of what its JSON functions return.
type projection struct {
	members map[string]*projection
	whole   bool
}

func newProjection(fields []string) (*projection, error) {
	if len(fields) == 0 {
		return nil, nil //nolint:nilnil // whole values
	}
	if len(fields) > MaxFields {
		return nil, &FilterError{Reason: fmt.Sprintf("a query keeps at most %d fields", MaxFields)}
	}
	root := &projection{members: map[string]*projection{}}
	for _, field := range fields {
		path, err := ParsePath(field)
		if err != nil {
			return nil, err
		}
		at := root
		for _, segment := range path {
			next := at.members[segment]
			if next == nil {
				next = &projection{members: map[string]*projection{}}
				at.members[segment] = next
			}
			at = next
		}
		at.whole = true
	}
	return root, nil
}

// cut returns the members of a value that are kept.
func (p *projection) cut(value []byte) ([]byte, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(value))
	if dec.PeekKind() != '{' {
		return []byte("{}"), nil
	}
	return p.appendObject(nil, dec)
}

func (p *projection) appendObject(out []byte, dec *jsontext.Decoder) ([]byte, error) {
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	out = append(out, '{')
	first := true
	for dec.PeekKind() != '}' {
		name, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		spelled := name.Clone()
		plain, err := jsontext.AppendUnquote(nil, spelled)
		if err != nil {
			return nil, err
		}
		member := p.members[string(plain)]
		if !member.keeps(dec.PeekKind()) {
			if err := dec.SkipValue(); err != nil {
				return nil, err
			}
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(append(out, spelled...), ':')
		if out, err = member.appendValue(out, dec); err != nil {
			return nil, err
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	return append(out, '}'), nil
}

// keeps reports whether anything of a value of this kind is kept.
func (p *projection) keeps(kind jsontext.Kind) bool {
	return p != nil && (p.whole || kind == '{' || kind == '[')
}

func (p *projection) appendValue(out []byte, dec *jsontext.Decoder) ([]byte, error) {
	if p.whole {
		value, err := dec.ReadValue()
		return append(out, value...), err
	}
	if dec.PeekKind() == '{' {
		return p.appendObject(out, dec)
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	out = append(out, '[')
	first := true
	for dec.PeekKind() != ']' {
		if !p.keeps(dec.PeekKind()) {
			if err := dec.SkipValue(); err != nil {
				return nil, err
			}
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		var err error
		if out, err = p.appendValue(out, dec); err != nil {
			return nil, err
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	return append(out, ']'), nil
}
