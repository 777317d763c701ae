package mirror

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A Reason is in which way a key is not the same in both places.
type Reason string

// The reasons, in the order in which they are asked for: a key counts for the first one.
const (
	MissingThere Reason = "missing-there" // it is here, and not in the other place
	MissingHere  Reason = "missing-here"  // it is only in the other place
	Unreadable   Reason = "unreadable"    // one of the places has something that is no value
	Value        Reason = "value"         // another value
	Expiry       Reason = "expiry"        // it expires at another time, or never
	ETag         Reason = "etag"          // another ETag, where they are compared
)

// Reasons are all reasons, in their order.
func Reasons() []Reason {
	return []Reason{MissingThere, MissingHere, Unreadable, Value, Expiry, ETag}
}

// tolerance is how far expiries may lie apart: servers' clocks differ, and some tell them to the second only.
const tolerance = 2 * time.Second

// difference is the reason why two records are not the same, or nothing.
func (c *Counterpart) difference(here, there state.Record) Reason {
	switch {
	case here.Found != there.Found && c.going(here, there):
		return ""
	case here.Found && !there.Found:
		return MissingThere
	case !here.Found && there.Found:
		return MissingHere
	case !here.Found:
		return ""
	case !sameJSON(here.Value, there.Value):
		return Value
	case !c.NoExpiry && (here.ExpiresAt.IsZero() != there.ExpiresAt.IsZero() || here.ExpiresAt.Sub(there.ExpiresAt).Abs() > tolerance):
		return Expiry
	case c.ETags && here.ETag != there.ETag:
		return ETag
	default:
		return ""
	}
}

// going reports a key that is gone in one place and about to go in the other.
func (c *Counterpart) going(here, there state.Record) bool {
	left := here
	if there.Found {
		left = there
	}
	return !left.ExpiresAt.IsZero() && time.Until(left.ExpiresAt) < tolerance
}

// sameJSON reports whether two texts are the same JSON value: members in any order, strings however they are escaped, and numbers by
// what they are, to the last digit (1.0 is 1; 9007199254740993 is not 9007199254740992). What is no JSON is compared as bytes.
func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, errX := jsontext.AppendFormat(nil, a, jsontext.ReorderRawObjects(true))
	y, errY := jsontext.AppendFormat(nil, b, jsontext.ReorderRawObjects(true))
	if errX != nil || errY != nil {
		return false
	}
	return bytes.Equal(x, y) || sameTokens(jsontext.NewDecoder(bytes.NewReader(x)), jsontext.NewDecoder(bytes.NewReader(y)))
}

func sameTokens(x, y *jsontext.Decoder) bool {
	for {
		a, errA := x.ReadToken()
		b, errB := y.ReadToken()
		switch {
		case errA != nil || errB != nil:
			return errors.Is(errA, io.EOF) && errors.Is(errB, io.EOF)
		case a.Kind() != b.Kind():
			return false
		case a.Kind() == '0':
			if !sameNumber(a.String(), b.String()) {
				return false
			}
		case a.Kind() == '"' && a.String() != b.String():
			return false
		}
	}
}

// sameNumber compares two JSON numbers exactly, whatever their size.
func sameNumber(a, b string) bool {
	if a == b {
		return true
	}
	x, okX := parseDecimal(a)
	y, okY := parseDecimal(b)
	return okX && okY && x == y
}

// A decimal is a number as 0.digits times ten to the exponent; digits neither begin nor end with a zero, and are empty for zero.
type decimal struct {
	negative bool
	digits   string
	exponent int64
}

func parseDecimal(number string) (decimal, bool) {
	var d decimal
	number, d.negative = strings.CutPrefix(number, "-")
	mantissa, exponent := number, ""
	if at := strings.IndexAny(number, "eE"); at >= 0 {
		mantissa, exponent = number[:at], number[at+1:]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	if exponent != "" {
		n, err := strconv.ParseInt(exponent, 10, 62) // room is left for what is added
		if err != nil {
			return d, false
		}
		d.exponent = n
	}
	d.exponent += int64(len(whole))
	digits := whole + fraction
	trimmed := strings.TrimLeft(digits, "0")
	d.exponent -= int64(len(digits) - len(trimmed))
	if d.digits = strings.TrimRight(trimmed, "0"); d.digits == "" {
		return decimal{}, true // no difference is made between 0 and -0
	}
	return d, true
}
