package daprbus_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus/daprbus"
)

// What comes without the app's token reaches neither handlers nor what is served beside them, which may be all of a node.
func TestAppTokenGuardsAllThatIsServed(t *testing.T) {
	d, err := daprbus.New(daprbus.Config{Endpoint: "http://127.0.0.1:3500", AppToken: "secret"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close(t.Context())) })
	h := d.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "next, told "+r.Header.Get("dapr-api-token"))
	}))
	for _, c := range []struct {
		method, path, token string
		want                int
	}{
		{"GET", "/dapr/subscribe", "", 401},
		{"GET", "/dapr/subscribe", "other", 401},
		{"GET", "/dapr/subscribe", "secret", 200},
		{"POST", "/dapr/events/orders", "", 401},
		{"POST", "/state/get", "", 401},
		{"POST", "/state/get", "other", 401},
		{"POST", "/state/get", "secret", 200},
		{"POST", "/healthz", "", 401},
		{"GET", "/healthz", "", 200}, // the sidecar's probe has no token
	} {
		r := httptest.NewRequest(c.method, c.path, strings.NewReader("{}"))
		if c.token != "" {
			r.Header.Set("dapr-api-token", c.token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, c.want, w.Code, c)
		require.NotContains(t, w.Body.String(), "secret", "the token is not passed on")
	}
}

// What is larger than the driver takes is refused whole, and not handed to handlers cut short.
func TestTooLargeAnEventIsNoEvent(t *testing.T) {
	d, err := daprbus.New(daprbus.Config{Endpoint: "http://127.0.0.1:3500"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close(t.Context())) })
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/dapr/events/orders", strings.NewReader(strings.Repeat(" ", 32<<20+1)))
	r.Header.Set("Content-Type", "application/cloudevents+json")
	d.Handler(nil).ServeHTTP(w, r)
	require.Equal(t, http.StatusBadRequest, w.Code)
}

// Without a token an event is taken from daprd, and not from a page in a browser, which can send forms and plain text to any port on its machine.
func TestEventsComeAsEnvelopes(t *testing.T) {
	d, err := daprbus.New(daprbus.Config{Endpoint: "http://127.0.0.1:3500"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close(t.Context())) })
	for media, want := range map[string]int{
		"": 415, "text/plain": 415, "application/x-www-form-urlencoded": 415, "multipart/form-data; boundary=x": 415, "application/json": 415,
		"application/cloudevents+json": 200, "application/cloudevents+json; charset=utf-8": 200,
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/dapr/events/orders", strings.NewReader(`{"specversion":"1.0"}`))
		r.Header.Set("Content-Type", media)
		d.Handler(nil).ServeHTTP(w, r)
		require.Equal(t, want, w.Code, media)
	}
}
