package daprtopics

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/cloudevents"
)

const anID = "0190a5a0-0000-7000-8000-000000000001"

func come(t *testing.T, envelope string) *bus.Message {
	t.Helper()
	m, err := unwrap(&bus.Message{Exchange: "orders", RoutingKey: "orders", Headers: map[string]string{bus.HeaderEnvelope: "true"}, Body: []byte(envelope)})
	require.NoError(t, err)
	return m
}

// An event of Dapr's is the flat event that a native program would have published: its data, stamped, to the digit.
func TestUnwrap(t *testing.T) {
	m := come(t, `{"specversion":"1.0","id":"`+anID+`","source":"shop","type":"com.dapr.event.sent","datacontenttype":"application/json","time":"2025-01-02T03:04:05Z",`+
		`"traceparent":"00-1-2-01","data":{"n":9007199254740993,"d":1.10,"n":1e400}}`)
	require.Equal(t, `{"eventId":"`+anID+`","timestamp":"2025-01-02T03:04:05Z","n":9007199254740993,"d":1.10,"n":1e400}`, string(m.Body))
	require.Equal(t, anID, m.ID)
	require.Empty(t, m.Type)
	require.Equal(t, "application/json", m.ContentType)
	require.Equal(t, "shop", m.Headers[bus.HeaderSourceService])
	require.Equal(t, "00-1-2-01", m.Headers[bus.HeaderTraceParent])
	require.Empty(t, m.Headers[bus.HeaderEnvelope])

	for envelope, want := range map[string]string{
		`{"specversion":"1.0","id":"a","source":"s","datacontenttype":"text/plain","data":"some \u0061 text"}`:               "some a text",
		`{"specversion":"1.0","id":"a","source":"s","datacontenttype":"application/octet-stream","data_base64":"Ynl0ZXM="}`:  "bytes",
		`{"specversion":"1.0","id":"a","source":"s","datacontenttype":"application/json","data":[1.10]}`:                     "[1.10]",
		`{"specversion":"1.0","id":"a","source":"s"}`:                                                                        "null",
		`{"specversion":"1.0","id":"a","source":"s","time":"2025-01-02T03:04:05Z","data":{ }}`:                               `{"eventId":"` + cloudevents.Identity("s", "a") + `","timestamp":"2025-01-02T03:04:05Z" }`,
		`{"specversion":"1.0","id":"a","source":"s","data":{"eventId":"own","timestamp":"2025-01-02T03:04:05Z"}}`:            `{"eventId":"own","timestamp":"2025-01-02T03:04:05Z"}`,
		`{"specversion":"1.0","id":"a","source":"s","time":"2025-01-02T03:04:05Z","data":{"eventId":null,"timestamp":null}}`: `{"eventId":null,"timestamp":null}`,
		`{"specversion":"1.0","id":"a","source":"s","time":"2025-01-02T03:04:05Z","data":{"eventId":"","timestamp":1}}`:      `{"eventId":"","timestamp":1}`,
	} {
		require.Equal(t, want, string(come(t, envelope).Body), envelope)
		require.NotEmpty(t, come(t, envelope).ID, envelope)
	}
	require.Equal(t, "own", come(t, `{"specversion":"1.0","id":"a","source":"s","data":{"eventId":"own"}}`).ID)
	require.WithinDuration(t, time.Now(), come(t, `{"specversion":"1.0","id":"a","source":"s","data":{}}`).Timestamp, time.Minute, "an event has a time")
	require.Equal(t, "made", come(t, `{"specversion":"1.0","id":"a","source":"s","type":"made"}`).Type)
}

// An event is one of its source: the same id of another source is another event, and the same of both is the same.
func TestIdentity(t *testing.T) {
	from := func(source string) string {
		return come(t, `{"specversion":"1.0","id":"7","source":"`+source+`","data":1}`).ID
	}
	first, again := from("shop"), from("shop")
	require.Equal(t, first, again)
	require.NotEqual(t, first, from("stock"))
}

// What is no envelope is handled as it came, and said to be none.
func TestNoEnvelope(t *testing.T) {
	for _, body := range []string{"raw", `{"a":1}`, `[1]`, "", `{"specversion":"1.0","id":"a","data_base64":"?"}`} {
		m, err := unwrap(&bus.Message{ID: "kept", Body: []byte(body)})
		require.Error(t, err, body)
		require.Equal(t, body, string(m.Body))
		require.Equal(t, "kept", m.ID)
	}
}

// A native event comes out of its envelope as it went in, and in it is a CloudEvent as Dapr's apps expect one.
func TestWrapAndUnwrap(t *testing.T) {
	at := time.Date(2025, 1, 2, 3, 4, 5, 678, time.UTC)
	for _, m := range []bus.Message{
		{RoutingKey: "orders", ID: anID, Type: "OrderPlacedEvent", ContentType: "application/json", Timestamp: at, CorrelationID: "c",
			Headers: map[string]string{bus.HeaderPartitionKey: "p", bus.HeaderSourceService: "shop"}, Body: []byte(`{"eventId":"` + anID + `","timestamp":"2025-01-02T03:04:05.000000678Z","n":1.10}`)},
		{RoutingKey: "orders", ID: anID, ContentType: "text/plain", Timestamp: at, Headers: map[string]string{bus.HeaderSourceService: "shop"}, Body: []byte("text")},
		{RoutingKey: "orders", ID: anID, ContentType: "application/octet-stream", Timestamp: at, Headers: map[string]string{bus.HeaderSourceService: "shop"}, Body: []byte("\xff")},
	} {
		wrapped := wrap(&m, Topic{Name: "Orders/New", PubSub: "broker"})
		var e map[string]jsontext.Value
		require.NoError(t, json.Unmarshal(wrapped.Body, &e))
		require.Equal(t, `"1.0" "Orders/New" "broker" "shop"`, string(e["specversion"])+" "+string(e["topic"])+" "+string(e["pubsubname"])+" "+string(e["source"]))
		back, err := unwrap(wrapped)
		require.NoError(t, err)
		require.Equal(t, string(m.Body), string(back.Body))
		for name, value := range m.Headers {
			require.Equal(t, value, back.Headers[name])
		}
		require.Equal(t, []any{m.ID, m.Type, m.ContentType, m.Timestamp, m.CorrelationID}, []any{back.ID, back.Type, back.ContentType, back.Timestamp, back.CorrelationID})
	}
}

// An event of a facade's app goes into the envelope that the app had made.
func TestWrapOfAnApp(t *testing.T) {
	came := come(t, `{"specversion":"1.0","id":"own","source":"elsewhere","type":"made","colour":"blue","data":{"a":1.10}}`)
	wrapped := wrap(came, Topic{Name: "orders", PubSub: "broker"})
	require.JSONEq(t, `{"specversion":"1.0","id":"own","source":"elsewhere","type":"made","colour":"blue","topic":"orders","pubsubname":"broker","data":{"a":1.10}}`, string(wrapped.Body))
	require.Contains(t, string(wrapped.Body), "1.10")
}

// Whatever comes, it is taken out or handed on, without a panic.
func FuzzUnwrap(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":"a","source":"s","data":{"n":1}}`))
	f.Add([]byte(`{"specversion":"1.0","id":"a","source":"s","data_base64":"YQ=="}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := unwrap(&bus.Message{Body: body})
		if err != nil && string(m.Body) != string(body) {
			t.Fatalf("an error, and another body: %q", m.Body)
		}
		if err == nil && m.ID == "" {
			t.Fatal("an event without an id")
		}
	})
}
