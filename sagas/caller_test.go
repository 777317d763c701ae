package sagas_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
	"github.com/bannou-mesh/bannou/sagas"
)

// overMesh is a Caller whose target "payment" is a handler behind a socket.
func overMesh(t *testing.T, h http.Handler) sagas.Caller {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	host, text, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)
	feed := new(meshtest.Feed)
	registry, err := mesh.NewRegistry(meshtest.NewTable(), feed, mesh.RegistryConfig{})
	require.NoError(t, err)
	require.NoError(t, registry.Register(t.Context(), mesh.Endpoint{AppID: "payment", InstanceID: "payment-1", Host: host, Port: port}))
	directory := mesh.NewDirectory(registry, feed, mesh.DirectoryConfig{})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- directory.Run(ctx) }()
	<-directory.Running()
	client, err := mesh.NewClient(mesh.ClientConfig{Directory: directory})
	require.NoError(t, err)
	t.Cleanup(func() {
		client.Close()
		stop()
		require.NoError(t, <-ended)
	})
	return sagas.OverMesh(client)
}

// A call is a POST with the key; what it answers is an answer, a refusal, or a failure that is worth another attempt.
func TestOverMesh(t *testing.T) {
	caller := overMesh(t, mesh.Addressed("payment", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || r.Header.Get("Idempotency-Key") != "k-1" || string(body) != `{"amount":20}` {
			http.Error(w, "no such call was made", http.StatusNotImplemented)
			return
		}
		switch r.URL.Path {
		case "/charge":
			_, _ = io.WriteString(w, `{"receipt":"r-1"}`)
		case "/silent":
			w.WriteHeader(http.StatusNoContent)
		case "/refuse":
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"code":"no_funds","detail":"the card has not that much"}`)
		case "/plain":
			http.Error(w, "no", http.StatusPaymentRequired)
		case "/wait":
			<-r.Context().Done()
		default:
			status, _ := strconv.Atoi(r.URL.Path[1:])
			w.WriteHeader(status)
		}
	})))
	call := func(ctx context.Context, method string) (jsontext.Value, error) {
		return caller.Call(ctx, "payment", method, "k-1", jsontext.Value(`{"amount":20}`))
	}
	answer, err := call(t.Context(), "charge")
	require.NoError(t, err)
	require.JSONEq(t, `{"receipt":"r-1"}`, string(answer))
	answer, err = call(t.Context(), "silent")
	require.NoError(t, err)
	require.Empty(t, answer)

	var refused *sagas.Refusal
	_, err = call(t.Context(), "refuse")
	require.ErrorAs(t, err, &refused)
	require.Equal(t, 409, refused.Status)
	require.Equal(t, "no_funds", refused.Code)
	require.Equal(t, "the card has not that much", refused.Detail)
	require.True(t, refused.Body.IsValid())
	_, err = call(t.Context(), "plain")
	require.ErrorAs(t, err, &refused)
	require.Equal(t, 402, refused.Status)
	require.NotEmpty(t, refused.Detail)
	require.Empty(t, refused.Body)

	for _, status := range []string{"401", "403", "405", "408", "421", "425", "429", "500", "503"} {
		_, err = call(t.Context(), status)
		require.Error(t, err, status)
		require.NotErrorAs(t, err, &refused, status)
	}
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = call(soon, "wait")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = caller.Call(t.Context(), "nobody", "charge", "k-1", nil)
	require.ErrorIs(t, err, mesh.ErrUnknownTarget)
}

// Another app's instance at the address refuses nothing: no handler saw the call.
func TestOverMeshToAnAddressThatWasGivenAnew(t *testing.T) {
	caller := overMesh(t, mesh.Addressed("stock", http.NotFoundHandler()))
	_, err := caller.Call(t.Context(), "payment", "charge", "k-1", jsontext.Value(`{}`))
	var refused *sagas.Refusal
	require.Error(t, err)
	require.NotErrorAs(t, err, &refused)
}
