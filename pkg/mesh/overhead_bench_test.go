package mesh_test

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// atOnce is a network that answers at once.
type atOnce struct{}

func (atOnce) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r.Body.Close()
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// What a call costs beside the network.
func BenchmarkCallWithoutNetwork(b *testing.B) {
	w := newWorld(b)
	for i := range 3 {
		w.register(b, endpoint("app", "node-"+strconv.Itoa(i)))
	}
	c := w.client(b, mesh.ClientConfig{Transport: atOnce{}})
	b.Run("invoke", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := mesh.Invoke[string, struct{}](b.Context(), c, "app", "svc/x", "x")
			require.NoError(b, err)
		}
	})
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			resp, err := c.Do(b.Context(), "app", request("GET", "/x", nil))
			require.NoError(b, err)
			resp.Body.Close()
		}
	})
}
