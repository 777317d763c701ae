package e2e

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// external is a suite that somebody else has started, such as `make compose-test`, told by variables:
//
//	BANNOU_TEST_NODE        URLs of its nodes, with commas; the first is asked
//	BANNOU_TEST_SHAPE       split: each service is on nodes of its own, and the ones named are of the mesh
//	BANNOU_TEST_TOKEN_FILE  file with the token that its nodes ask for
//	BANNOU_TEST_GATEWAY     URLs of its gateways, with commas, for TestPlayers; by default those of its nodes
//	BANNOU_TEST_HOST        address of this machine at which its nodes reach programs of the test
func external(t *testing.T) suite {
	named := os.Getenv("BANNOU_TEST_NODE")
	if named == "" {
		t.Skip("BANNOU_TEST_NODE names no node; `make compose-test` sets it")
	}
	nodes := strings.Split(named, ",")
	s := direct(nodes[0])
	if os.Getenv("BANNOU_TEST_SHAPE") == "split" {
		s = throughMesh(nodes[0])
	}
	s.nodes, s.host = nodes, os.Getenv("BANNOU_TEST_HOST")
	if file := os.Getenv("BANNOU_TEST_TOKEN_FILE"); file != "" {
		token, err := os.ReadFile(file)
		require.NoError(t, err)
		s.client = &http.Client{Transport: showing{strings.TrimSpace(string(token))}}
	}
	return s
}

// showing adds the mesh's token to each request.
type showing struct{ token string }

func (s showing) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Bannou-Token", s.token)
	return http.DefaultTransport.RoundTrip(r)
}
