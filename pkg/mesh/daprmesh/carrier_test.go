package daprmesh_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/daprmesh"
)

// unresolved is what daprd 1.14 was seen to answer to the first call after its start.
const unresolved = `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: payments, err: rpc error: code = Unavailable ` +
	`desc = last connection error: failed to exit idle mode: passthrough: received empty target in Build()"}`

// sidecar answers so many calls with what it answers while a name has no address, and those after it with the body they had.
func sidecar(t *testing.T, refusals int64) (*daprmesh.Carrier, *atomic.Int64) {
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) <= refusals {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, unresolved)
			return
		}
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(server.Close)
	c, err := daprmesh.New(daprmesh.Config{Endpoint: server.URL})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c, &calls
}

func TestACallWaitsForTheAddressOfAName(t *testing.T) {
	c, calls := sidecar(t, 2)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/pay", strings.NewReader("7 coins"))
	require.NoError(t, err)
	resp, err := c.Carry("payments", req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "7 coins", string(body), "the body is sent whole each time")
	require.EqualValues(t, 3, calls.Load())
}

type answering func(*http.Request) (*http.Response, error)

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) { return a(r) }

// refusing is a sidecar that never knows the address, and counts the calls.
func refusing(t *testing.T, calls *int) *daprmesh.Carrier {
	c, err := daprmesh.New(daprmesh.Config{Endpoint: "http://sidecar", Transport: answering(func(*http.Request) (*http.Response, error) {
		*calls++
		return &http.Response{
			StatusCode: http.StatusInternalServerError, Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: -1,
			Body: io.NopCloser(strings.NewReader(unresolved)),
		}, nil
	})})
	require.NoError(t, err)
	return c
}

func TestACallWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls int
		c := refusing(t, &calls)
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/pay", nil)
		require.NoError(t, err)
		_, err = c.Carry("payments", req)
		require.ErrorContains(t, err, "received empty target")
		require.ErrorIs(t, err, mesh.ErrNoEndpoint)
		require.Equal(t, 200*time.Millisecond, time.Since(begin))
	})
}

// What the app passes on of its own sidecar is no reason to give it the call again.
func TestACallThatTheAppHadIsNotMadeAgain(t *testing.T) {
	var calls int
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/order", nil)
	require.NoError(t, err)
	_, err = refusing(t, &calls).Carry("orders", req)
	require.ErrorIs(t, err, mesh.ErrNoEndpoint)
	require.Equal(t, 1, calls)
}

func TestACallWhoseBodyIsGoneIsNotMadeAgain(t *testing.T) {
	c, calls := sidecar(t, 1)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/pay", io.MultiReader(strings.NewReader("7 coins")))
	require.NoError(t, err)
	_, err = c.Carry("payments", req)
	require.ErrorIs(t, err, mesh.ErrNoEndpoint)
	require.EqualValues(t, 1, calls.Load())
}
