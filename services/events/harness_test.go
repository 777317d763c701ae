package events_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/services/events"
	"github.com/bannou-mesh/bannou/services/host"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// object is a JSON object.
type object = map[string]any

// node is the events service on a host, as a caller sees it.
type node struct {
	t             testing.TB
	url           string
	client        *http.Client
	authorization string // of its requests
	drain         func() // asks it to end
	stop          func() // before the test ends
}

// as is the node for a caller with this token.
func (n *node) as(token string) *node {
	other := *n
	other.authorization = "Bearer " + token
	return &other
}

// start runs the service over a log in memory, unless cfg has one, until the test ends.
func start(t testing.TB, cfg events.Config) *node {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = memoryevents.New(eventstore.Config{})
	}
	service, err := events.New(cfg)
	require.NoError(t, err)
	h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	require.NoError(t, h.Add(service))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	select {
	case <-h.Started():
	case err := <-done:
		t.Fatal(err)
	}
	n := &node{t: t, url: "http://" + h.Addr().String(), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}, drain: cancel}
	n.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
		n.client.CloseIdleConnections()
	})
	t.Cleanup(n.stop)
	return n
}

// patience is how long is waited for what has to come.
const patience = 30 * time.Second

// send posts a body as it is, with headers as names and values in turn.
func (n *node) send(ctx context.Context, path, body string, headers ...string) *http.Response {
	n.t.Helper()
	response, err := n.ask(ctx, path, body, headers...)
	require.NoError(n.t, err)
	return response
}

// ask is send for who waits for an answer, and tries again.
func (n *node) ask(ctx context.Context, path, body string, headers ...string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	if n.authorization != "" {
		request.Header.Set("Authorization", n.authorization)
	}
	return n.client.Do(request)
}

// post sends a body as it is and returns status, answer and what is in it.
func (n *node) post(path, body string) (int, string, object) {
	n.t.Helper()
	response := n.send(n.t.Context(), path, body)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	require.NoError(n.t, err)
	var decoded object
	require.NoError(n.t, json.Unmarshal(answer, &decoded), "%s", answer)
	if response.StatusCode >= 300 {
		require.Equal(n.t, "application/problem+json", response.Header.Get("Content-Type"))
	}
	return response.StatusCode, string(answer), decoded
}

// must posts what has to succeed.
func (n *node) must(path, body string) object {
	n.t.Helper()
	status, answer, decoded := n.post(path, body)
	require.Equal(n.t, 200, status, "%s %s: %s", path, body, answer)
	return decoded
}

// becomes posts again and again, until it succeeds and what is answered is as is said.
func (n *node) becomes(path, body string, is func(answer object) bool) {
	n.t.Helper()
	require.Eventually(n.t, func() bool {
		response, err := n.ask(n.t.Context(), path, body)
		if err != nil {
			return false
		}
		defer response.Body.Close()
		var answer object
		return response.StatusCode == http.StatusOK && json.NewDecoder(response.Body).Decode(&answer) == nil && is(answer)
	}, patience, 10*time.Millisecond, "%s %s", path, body)
}

// refused posts what has to fail with a code, and returns the problem.
func (n *node) refused(path, body string, status int, code string) object {
	n.t.Helper()
	got, answer, decoded := n.post(path, body)
	require.Equal(n.t, status, got, "%s %s: %s", path, body, answer)
	require.Equal(n.t, code, decoded["code"], "%s %s: %s", path, body, answer)
	return decoded
}
