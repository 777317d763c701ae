package daprmesh_test

import (
	"cmp"
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

// refusing is a sidecar that always says one thing, and counts the calls.
func refusing(t *testing.T, status int, said string, calls *int) *daprmesh.Carrier {
	c, err := daprmesh.New(daprmesh.Config{Endpoint: "http://sidecar", Transport: answering(func(*http.Request) (*http.Response, error) {
		*calls++
		return &http.Response{
			StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: -1,
			Body: io.NopCloser(strings.NewReader(said)),
		}, nil
	})})
	require.NoError(t, err)
	return c
}

func TestACallWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls int
		c := refusing(t, http.StatusInternalServerError, unresolved, &calls)
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

// Only what the sidecar says of this very call tells that nothing was sent: after it a caller may ask again.
func TestARefusalSaysWhetherTheCallWasSent(t *testing.T) {
	refusal := func(message string) string { return `{"errorCode":"ERR_DIRECT_INVOKE","message":"` + message + `"}` }
	const absent = "failed to invoke, id: payments, err: couldn't find service: payments"
	for name, c := range map[string]struct {
		said   string
		status int
		want   error // nil: nobody knows whether it was sent
	}{
		"the callee was killed": {said: refusal("failed to invoke, id: orders, err: failed to invoke target orders after 3 retries. Error: " +
			"rpc error: code = Unavailable desc = error reading from server: EOF")},
		"the app passes on that another's address is not known":  {said: unresolved},
		"the app passes on that there is no other":               {said: refusal(absent)},
		"the app passes on that there is no other, as not found": {said: refusal(absent), status: http.StatusNotFound},
		"there is no such app":                                   {said: refusal("failed to invoke, id: orders, err: couldn't find service: orders"), want: mesh.ErrUnknownTarget},
	} {
		t.Run(name, func(t *testing.T) {
			var calls int
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/order", nil)
			require.NoError(t, err)
			_, err = refusing(t, cmp.Or(c.status, http.StatusInternalServerError), c.said, &calls).Carry("orders", req)
			require.ErrorContains(t, err, `the sidecar says of "orders": failed to invoke`)
			require.Equal(t, 1, calls)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
				return
			}
			require.ErrorContains(t, err, "may or may not have had the call")
			status, code := mesh.ErrorStatus(err)
			require.Equal(t, http.StatusBadGateway, status)
			require.Equal(t, "bad_gateway", code)
		})
	}
}

func TestACallWhoseBodyIsGoneIsNotMadeAgain(t *testing.T) {
	c, calls := sidecar(t, 1)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/pay", io.MultiReader(strings.NewReader("7 coins")))
	require.NoError(t, err)
	_, err = c.Carry("payments", req)
	require.ErrorIs(t, err, mesh.ErrNoEndpoint)
	require.EqualValues(t, 1, calls.Load())
}
