package bus

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

// Whatever comes in: it is refused as invalid, or what goes out is one JSON object with an id and a time, all other
// members as they were, and stamping it again changes nothing.
func FuzzStampBody(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { } `, `{"a":1}`, `{"eventId":"x"}`, `{"timestamp":"2024-05-06T07:08:09Z"}`, `{"eventId":null}`,
		`{"eventId":"x","timestamp":"2024-05-06T07:08:09.123+02:00","n":12345678901234567890.5}`, `[]`, `{"a":`, `{}{}`, "\xff",
		`{"timestamp":"0000-01-01T0:00:00Z"}`, `{"timestamp":"2024-05-06T07:08:09,5Z"}`, `{"eventId":"a","eventId":"b"}`, `{"nested":{"eventId":7}}`, `{"event\u0049d":"escaped"}`,
	} {
		f.Add([]byte(seed))
	}
	at := time.Date(2025, 1, 2, 3, 4, 5, 678, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte) {
		out, id, when, err := stampBody(body, "made \" up", at)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		var before, after map[string]jsontext.Value
		require.NoError(t, json.Unmarshal(body, &before))
		require.NoError(t, json.Unmarshal(out, &after), "stamped: %s", out)
		var own string
		require.NoError(t, json.Unmarshal(after["eventId"], &own))
		require.Equal(t, own, id)
		var stamp time.Time
		require.NoError(t, json.Unmarshal(after["timestamp"], &stamp))
		require.True(t, stamp.Equal(when))
		for name, value := range before {
			require.Equal(t, string(value), string(after[name]), "member %q", name)
		}
		again, sameID, _, err := stampBody(out, "another", at.Add(time.Hour))
		require.NoError(t, err)
		require.Equal(t, id, sameID)
		require.Equal(t, string(out), string(again))
	})
}
