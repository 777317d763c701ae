package state

import (
	stdjson "encoding/json"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

// FuzzRaw: raw JSON is passed through to the byte or refused, by the same rules in both directions.
func FuzzRaw(f *testing.F) {
	for _, seed := range []string{"null", " 1.10 ", `{"a":1,"a":2}`, "\"\xff\"", "1e400", "", "{}{}", `"\ud800"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		stored, err := encode(jsontext.Value(data))
		again, errStd := encode(stdjson.RawMessage(data))
		require.Equal(t, err == nil, errStd == nil)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			_, err = decode[jsontext.Value](data)
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		require.Equal(t, data, stored)
		require.Equal(t, data, again)
		require.True(t, stdjson.Valid(data), "what is stored is JSON for others, too")
		read, err := decode[stdjson.RawMessage](stored)
		require.NoError(t, err)
		require.Equal(t, string(data), string(read))
	})
}

func TestValuesThatAreNotJSON(t *testing.T) {
	_, err := encode(func() {})
	require.ErrorIs(t, err, ErrInvalid)
	_, err = encode(map[string]string{"k": "\xff"})
	require.ErrorIs(t, err, ErrInvalid)
	_, err = encode(jsontext.Value(nil))
	require.ErrorIs(t, err, ErrInvalid)
}
