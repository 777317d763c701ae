package state

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// A Rank is the place of a type of JSON in the order of a Sort.
type Rank uint8

// The ranks, in order. A missing member has that of null.
const (
	RankNull Rank = iota
	RankNumber
	RankString
	RankObject
	RankArray
	RankBool
)

// A Position is a place in the order of a query: that of one value. What comes after the value comes after it.
type Position struct {
	Places []Place // one for each Sort of the query
	Key    string
}

// A Place is where a value stands by one Sort.
type Place struct {
	Rank Rank
	Text string // of RankNumber as written, of RankString the content, of RankBool "true" or "false", otherwise empty
}

// PositionOf returns the position of a record that a query with these sorts has found. A value that cannot be read is
// ErrCorrupt.
func PositionOf(r Record, sorts []Sort) (Position, error) {
	p := Position{Key: r.Key, Places: make([]Place, len(sorts))}
	for i, s := range sorts {
		path, err := ParsePath(s.Field)
		if err != nil {
			return Position{}, err
		}
		if p.Places[i], err = placeAt(r.Value, path); err != nil {
			return Position{}, fmt.Errorf("%w: key %q: %w", ErrCorrupt, r.Key, err)
		}
	}
	return p, nil
}

// placeAt follows a path through objects.
func placeAt(value []byte, path []string) (Place, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(value))
	for _, segment := range path {
		found, err := enterMember(dec, segment)
		if err != nil || !found {
			return Place{}, err
		}
	}
	switch kind := dec.PeekKind(); kind {
	case '{':
		return Place{Rank: RankObject}, nil
	case '[':
		return Place{Rank: RankArray}, nil
	default:
		token, err := dec.ReadToken()
		switch {
		case err != nil:
			return Place{}, err
		case kind == '0':
			return Place{Rank: RankNumber, Text: token.String()}, nil
		case kind == '"':
			return Place{Rank: RankString, Text: token.String()}, nil
		case kind == 't', kind == 'f':
			return Place{Rank: RankBool, Text: token.String()}, nil
		}
		return Place{}, nil
	}
}

// enterMember reads on to the value of an object's member. It reports false when there is none, or no object.
func enterMember(dec *jsontext.Decoder, name string) (bool, error) {
	if dec.PeekKind() != '{' {
		return false, nil
	}
	if _, err := dec.ReadToken(); err != nil {
		return false, err
	}
	for dec.PeekKind() != '}' {
		token, err := dec.ReadToken()
		if err != nil {
			return false, err
		}
		if token.String() == name {
			return true, nil
		}
		if err := dec.SkipValue(); err != nil {
			return false, err
		}
	}
	return false, nil
}

// check refuses what PositionOf does not make, since a position may come from outside in a cursor.
func (p *Position) check(sorts []Sort) error {
	if len(p.Places) != len(sorts) {
		return &FilterError{Reason: fmt.Sprintf("the position has %d places and the query %d sorts; both must be of one query", len(p.Places), len(sorts))}
	}
	if err := checkKey(p.Key); err != nil {
		return &FilterError{Reason: "the position's key is none: " + err.Error()}
	}
	for _, place := range p.Places {
		ok := place.Text == ""
		switch place.Rank {
		case RankNull, RankObject, RankArray:
		case RankNumber:
			ok = jsontext.Value(place.Text).Kind() == '0' && jsontext.Value(place.Text).IsValid() && place.Text[0] > ' ' && place.Text[len(place.Text)-1] > ' '
		case RankString:
			ok = utf8.ValidString(place.Text)
		case RankBool:
			ok = place.Text == "true" || place.Text == "false"
		default:
			ok = false
		}
		if !ok {
			return &FilterError{Reason: "the position has a place that no value has"}
		}
	}
	return nil
}
