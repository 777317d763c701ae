package e2e

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// A span is what a collector was sent of one.
type span struct {
	name, trace, id, parent string
	service, instance       string
}

// collect is a collector of traces.
func collect(t *testing.T) (url string, spans func() []span) {
	t.Helper()
	var mu sync.Mutex
	var all []span
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(raw, &request)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range request.GetResourceSpans() {
			of := map[string]string{}
			for _, a := range rs.GetResource().GetAttributes() {
				of[a.GetKey()] = a.GetValue().GetStringValue()
			}
			for _, ss := range rs.GetScopeSpans() {
				for _, s := range ss.GetSpans() {
					all = append(all, span{s.GetName(), hex.EncodeToString(s.GetTraceId()), hex.EncodeToString(s.GetSpanId()),
						hex.EncodeToString(s.GetParentSpanId()), of["service.name"], of["service.instance.id"]})
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []span {
		mu.Lock()
		defer mu.Unlock()
		return append([]span(nil), all...)
	}
}

// One trace goes from the request that publishes an event through the bus to the callback that is called for it; the
// collector has all of it when the node has ended.
func TestOneTraceFromPublishToCallback(t *testing.T) {
	address, spans := collect(t)
	n := startNode(t, "--telemetry-otlp-endpoint", address, "--app-id", "traced", "--instance-id", "one")
	url, calls := receiver(t, ok)
	s := direct(n.url)
	s.must(t, "messaging/subscribe", object{"topic": "traced.event", "callbackUrl": url})
	s.must(t, "messaging/publish", object{"topic": "traced.event", "payload": object{}})
	called := strings.Split(next(t, calls).header.Get("traceparent"), "-")
	require.Len(t, called, 4)
	require.Equal(t, 0, n.stop(t), "%s", n.log)

	byID := map[string]span{}
	for _, s := range spans() {
		byID[s.id] = s
	}
	var way []string
	for id := called[2]; byID[id].id != ""; id = byID[id].parent {
		s := byID[id]
		require.Equal(t, called[1], s.trace)
		require.Equal(t, "traced", s.service)
		require.Equal(t, "one", s.instance)
		way = append(way, s.name)
	}
	require.Equal(t, []string{"handle", "receive", "publish"}, way[:3])
	require.Contains(t, way[3], "POST /messaging/publish")
	require.Len(t, way, 4)
}

// A caller's decision not to record holds, whatever the ratio; where the ratio is 0, callers who record are recorded.
func TestTracesAreSampledAsCallersDecide(t *testing.T) {
	const id = "0af7651916cd43dd8448eb211c80319"
	address, spans := collect(t)
	n := startNode(t, "--telemetry-otlp-endpoint", address, "--telemetry-sample-ratio", "0")
	for _, parent := range []string{"00-" + id + "1-b7ad6b7169203331-01", "00-" + id + "2-b7ad6b7169203331-00", ""} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.url+"/messaging/publish", strings.NewReader(`{"topic":"a.b","payload":{}}`))
		require.NoError(t, err)
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("traceparent", parent)
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		response.Body.Close()
		require.Equal(t, http.StatusOK, response.StatusCode)
	}
	require.Equal(t, 0, n.stop(t), "%s", n.log)
	require.NotEmpty(t, spans())
	for _, s := range spans() {
		require.Equal(t, id+"1", s.trace)
	}
}

// A collector that is away costs a line in the log.
func TestCollectorIsAway(t *testing.T) {
	n := startPlain(t, "--telemetry-otlp-endpoint", "http://user:hidden@"+freeAddress(t)) // one call is read for each event
	url, calls := receiver(t, ok)
	s := direct(n.url)
	s.must(t, "messaging/subscribe", object{"topic": "traced.event", "callbackUrl": url})
	const events = 1000 // more than a batch, which is sent when it is full
	for range events {
		s.must(t, "messaging/publish", object{"topic": "traced.event", "payload": object{}})
		next(t, calls)
	}
	require.Eventually(t, func() bool { return strings.Contains(n.log.String(), "traces were not sent") }, patience, 10*time.Millisecond)
	require.Equal(t, 0, n.stop(t), "%s", n.log)
	require.Equal(t, 1, strings.Count(n.log.String(), "traces were not sent"), "%s", n.log)
	require.NotContains(t, n.log.String(), "hidden")
}
