package bus

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

// Who sends an object with a wrong member is told of the member, and not that an object is needed.
func TestFaultsOfABodyAreToldApart(t *testing.T) {
	const object = "must be a JSON object"
	for body, want := range map[string]string{
		`{"eventId":5}`:             "eventId is 5, and has to be a string",
		`{"eventId":null}`:          "eventId is null, and has to be a string",
		`{"eventId":""}`:            `eventId is "", and has to be a string`,
		`{"eventId":{"a":1}}`:       `eventId is {"a":1}, and has to be a string`,
		`{"timestamp":"yesterday"}`: `timestamp is "yesterday", and has to be a time of RFC 3339`,
		`{"timestamp":7}`:           "timestamp is 7, and has to be a time of RFC 3339",
		`[]`:                        object,
		`5`:                         object,
		`{"a":`:                     object,
		`{}{}`:                      object,
	} {
		_, _, _, err := stampBody([]byte(body), "id", time.Now())
		require.ErrorIs(t, err, ErrInvalid, body)
		require.ErrorContains(t, err, want, body)
		if want != object {
			require.NotContains(t, err.Error(), object, body)
		}
	}
}

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
