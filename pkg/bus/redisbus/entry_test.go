package redisbus

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// stored is what Redis gives back of the fields: every value is text.
func stored(fields map[string]any) map[string]any {
	out := make(map[string]any, len(fields))
	for name, value := range fields {
		switch v := value.(type) {
		case []byte:
			out[name] = string(v)
		case string:
			out[name] = v
		}
	}
	return out
}

func full() *bus.Message {
	return &bus.Message{
		Exchange: "taps", RoutingKey: "orders.placed", ID: "id-1", Type: "OrderPlaced", ContentType: "application/json",
		Timestamp: time.Unix(1_700_000_000, 5).UTC(), CorrelationID: "talk", Priority: 7, Expiration: 90 * time.Second,
		Transient: true, Headers: map[string]string{"tenant": "blue", "empty": ""}, Body: []byte{0, 0xff, '{'},
	}
}

func TestPropertiesAndAttemptTravel(t *testing.T) {
	fields, err := encode(full(), 3)
	require.NoError(t, err)
	got, attempt, err := decode(stored(fields))
	require.NoError(t, err)
	require.Equal(t, full(), got)
	require.Equal(t, 3, attempt)
}

// A stock program sees the user's headers as they are; a user's header cannot pass for a property.
func TestStockProgramReadsIt(t *testing.T) {
	m := full()
	m.Headers[keyPriority], m.Headers[redisstream.UUIDHeaderKey] = "9", "other"
	fields, err := encode(m, 1)
	require.NoError(t, err)
	got, err := redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(stored(fields))
	require.NoError(t, err)
	require.Equal(t, "id-1", got.UUID)
	require.Equal(t, "blue", got.Metadata["tenant"])
	require.Equal(t, "7", got.Metadata[keyPriority])
	require.Equal(t, m.Body, []byte(got.Payload))
}

func TestForeignEntries(t *testing.T) {
	m, attempt, err := decode(map[string]any{"payload": ""})
	require.NoError(t, err, "no id and no metadata is little, but readable")
	require.Empty(t, m.ID)
	require.Equal(t, 1, attempt)
	odd, err := encode(&bus.Message{ID: "x", Headers: map[string]string{"k": "v"}}, 1)
	require.NoError(t, err)
	m, _, err = decode(stored(odd))
	require.NoError(t, err)
	require.Equal(t, "v", m.Headers["k"])
	for _, fields := range []map[string]any{{}, {"body": "x"}, {"payload": "x", "metadata": "\xc1 not msgpack"}} {
		_, _, err := decode(fields)
		require.ErrorIs(t, err, bus.ErrInvalid)
	}
}
