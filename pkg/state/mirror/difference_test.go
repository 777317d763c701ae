package mirror

import (
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// JSON is compared as JSON: spelling does not count, and no digit is lost.
func TestSameJSON(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{`{"a":1,"b":[1,2]}`, `{ "b": [1, 2], "a": 1 }`, true},
		{`{"a":{"c":1,"d":2}}`, `{"a":{"d":2,"c":1}}`, true},
		{`"\u00e9/"`, `"é\/"`, true},
		{`1.0`, `1`, true},
		{`1e2`, `100`, true},
		{`-0`, `0`, true},
		{`0.00120e3`, `1.2`, true},
		{`9007199254740993`, `9007199254740992`, false},
		{`3.141592653589793`, `3.141593`, false},
		{`[1,2]`, `[2,1]`, false},
		{`"1"`, `1`, false},
		{`null`, `false`, false},
		{`{"a":1}`, `{"a":1,"b":null}`, false},
		{`[[1],2]`, `[1,[2]]`, false},
		{`1e99999999999999999999`, `1e99999999999999999998`, false},
		{`no json`, `no json`, true},
		{`no json`, `1`, false},
	} {
		require.Equal(t, c.same, sameJSON([]byte(c.a), []byte(c.b)), "%s and %s", c.a, c.b)
		require.Equal(t, c.same, sameJSON([]byte(c.b), []byte(c.a)), "%s and %s", c.b, c.a)
	}
}

// Numbers are equal when exact arithmetic says so, however they are spelled.
func TestSameNumberIsExact(t *testing.T) {
	number := rapid.Custom(func(t *rapid.T) string {
		s := rapid.StringMatching(`-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,6})?(e[+-]?[0-9]{1,2})?`).Draw(t, "number")
		return s
	})
	rapid.Check(t, func(t *rapid.T) {
		a := number.Draw(t, "a")
		b := a
		switch rapid.IntRange(0, 2).Draw(t, "how") {
		case 0:
			b = number.Draw(t, "b")
		case 1: // the same, ten times and a tenth
			mantissa, exponent, _ := strings.Cut(a, "e")
			if exponent == "" {
				exponent = "0"
			}
			if !strings.Contains(mantissa, ".") {
				mantissa += ".0"
			}
			b = mantissa + "0e" + exponent
		}
		x, okX := new(big.Rat).SetString(a)
		y, okY := new(big.Rat).SetString(b)
		if okX && okY && (x.Cmp(y) == 0) != sameNumber(a, b) {
			t.Fatalf("%s and %s: equal is %t", a, b, x.Cmp(y) == 0)
		}
	})
}

func TestReasons(t *testing.T) {
	soon, later := time.Now().Add(time.Minute), time.Now().Add(time.Hour)
	here := state.Record{Found: true, Value: []byte(`1`), ETag: "1", ExpiresAt: soon}
	with := func(change func(r *state.Record)) state.Record {
		r := here
		change(&r)
		return r
	}
	for i, c := range []struct {
		here, there state.Record
		to          Counterpart
		want        Reason
	}{
		{here, here, Counterpart{ETags: true}, ""},
		{here, state.Record{}, Counterpart{}, MissingThere},
		{state.Record{}, here, Counterpart{}, MissingHere},
		{here, with(func(r *state.Record) { r.Value = []byte(`2`) }), Counterpart{}, Value},
		{here, with(func(r *state.Record) { r.ExpiresAt = later }), Counterpart{}, Expiry},
		{here, with(func(r *state.Record) { r.ExpiresAt = time.Time{} }), Counterpart{}, Expiry},
		{here, with(func(r *state.Record) { r.ExpiresAt = time.Time{} }), Counterpart{NoExpiry: true}, ""},
		{here, with(func(r *state.Record) { r.ETag = "2" }), Counterpart{}, ""},
		{here, with(func(r *state.Record) { r.ETag = "2" }), Counterpart{ETags: true}, ETag},
		{with(func(r *state.Record) { r.ExpiresAt = time.Now().Add(time.Second) }), state.Record{}, Counterpart{}, ""}, // it is about to go
	} {
		require.Equal(t, c.want, c.to.difference(c.here, c.there), fmt.Sprint(i))
	}
}
