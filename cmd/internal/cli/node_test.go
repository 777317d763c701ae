package cli_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/internal/cli"
	"github.com/bannou-mesh/bannou/services/guard"
)

// The caller's token is for the node. Authorization goes on to the target of a call, and is there only when it is given.
func TestTheTokenIsNotForTheTarget(t *testing.T) {
	const token = "secret-of-operator-0123456789"
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(token), 0o600))
	var header http.Header
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header.Clone()
		_, _ = w.Write([]byte(`{"endpoints":[]}`))
	}))
	defer node.Close()
	for _, c := range []struct {
		args                   []string
		forNode, authorization string
	}{
		{[]string{"invoke", "thief", "x"}, token, ""},
		{[]string{"invoke", "thief", "x", "-H", "Authorization=Basic abc"}, token, "Basic abc"},
		{[]string{"endpoints"}, "", "Bearer " + token},
	} {
		var out, errs bytes.Buffer
		args := append(c.args, "--node", node.URL, "--token-file", file)
		require.Zero(t, cli.Main(args, "test", nil, &out, &errs), errs.String())
		require.Equal(t, c.forNode, header.Get(guard.TokenHeader), c.args)
		require.Equal(t, c.authorization, header.Get("Authorization"), c.args)
	}
}
