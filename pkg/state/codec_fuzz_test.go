package state

import (
	"bytes"
	"math/big"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

// FuzzNumbers: a number that is passed through keeps every digit, and one read into an integer is that integer or an error, never one near
// it.
func FuzzNumbers(f *testing.F) {
	for _, seed := range []string{"0", "-0", "9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "1.10", "1e2", "0.1e-400",
		"1e400", "12345678901234567890.123456789", "1E+2", "01", "+1", ".5", "NaN", "-"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		document := []byte(`{"n":` + text + `}`)
		number, err := decode[struct {
			N jsontext.Value `json:"n"`
		}](document)
		if err != nil || number.N.Kind() != '0' {
			return // FuzzRaw is about what is not JSON
		}
		stored, err := encode(jsontext.Value(document))
		require.NoError(t, err)
		require.Equal(t, string(document), string(stored))
		again, err := encode(number)
		require.NoError(t, err)
		require.Equal(t, `{"n":`+string(number.N)+`}`, string(again), "to the digit")

		exact, ok := new(big.Rat).SetString(limited(number.N))
		if !ok {
			return
		}
		integer, err := decode[struct {
			N int64 `json:"n"`
		}](document)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		require.Zero(t, exact.Cmp(new(big.Rat).SetInt64(integer.N)), "%s was read as %d", number.N, integer.N)
	})
}

// limited is the text of a number, or none where its exponent would make the exact value too long to compute.
func limited(n jsontext.Value) string {
	if i := bytes.IndexAny(n, "eE"); len(n) > 400 || i >= 0 && len(n)-i > 5 {
		return ""
	}
	return string(n)
}

// FuzzKeys: a key is taken or refused with ErrInvalid, by its bytes alone, and what is taken can stand in an error's sentence.
func FuzzKeys(f *testing.F) {
	for _, seed := range []string{"", "a", "é", "\x00", "\xff", "{tag}k", "a'; DROP TABLE state_entries; --", "%_*?[", "\u202e", "\n", string(bytes.Repeat([]byte("k"), 256))} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, key, other string) {
		err := checkKey(key)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			require.True(t, key == "" || len(key) > MaxKeyBytes || bytes.ContainsRune([]byte(key), 0) || !bytes.Equal(bytes.ToValidUTF8([]byte(key), nil), []byte(key)))
		} else {
			require.True(t, len(key) >= 1 && len(key) <= MaxKeyBytes)
		}
		both := checkKeys([]string{key, other})
		require.Equal(t, err != nil || checkKey(other) != nil, both != nil)
		distinct := checkDistinct([]Change{{Key: key}, {Key: other}})
		require.Equal(t, key == other, distinct != nil, "keys are compared by their bytes")
		require.Equal(t, both == nil && distinct == nil, checkKeys([]string{other, key}) == nil && checkDistinct([]Change{{Key: other}, {Key: key}}) == nil)
	})
}
