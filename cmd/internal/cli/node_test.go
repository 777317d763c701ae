package cli_test

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/internal/cli"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/guard/guardtest"
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

// A node that is there, and cannot be talked to like this, is not said to be away.
func TestWhyANodeCannotBeTalkedTo(t *testing.T) {
	quiet := func(s *httptest.Server) *httptest.Server {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		t.Cleanup(s.Close)
		return s
	}
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"endpoints":[]}`)) })
	secure, plain := quiet(httptest.NewUnstartedServer(answer)), quiet(httptest.NewUnstartedServer(answer))
	secure.StartTLS()
	plain.Start()
	authority := guardtest.NewAuthority(t)
	files := authority.Node(t, "bannou")
	own := filepath.Join(t.TempDir(), "ca.crt")
	require.NoError(t, os.WriteFile(own, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600))
	port := secure.Listener.Addr().(*net.TCPAddr).Port
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"no authority":      {[]string{"--node", secure.URL}, []string{secure.URL, "--ca-file"}},
		"another authority": {[]string{"--node", secure.URL, "--ca-file", files.Authority}, []string{secure.URL, "--ca-file"}},
		"another name":      {[]string{"--node", fmt.Sprintf("https://localhost:%d", port), "--ca-file", own}, []string{"localhost", "certificate"}},
		"without TLS":       {[]string{"--node", strings.Replace(secure.URL, "https:", "http:", 1)}, []string{"speaks https", "--node " + secure.URL}},
		"with TLS":          {[]string{"--node", strings.Replace(plain.URL, "http:", "https:", 1)}, []string{"speaks http,", "--node " + plain.URL}},
	} {
		var out, errs bytes.Buffer
		require.Equal(t, 1, cli.Main(append([]string{"endpoints"}, c.args...), "test", nil, &out, &errs), name)
		require.NotContains(t, errs.String(), "no node answers", name)
		require.NotContains(t, errs.String(), "bannou serve", name)
		for _, says := range c.says {
			require.Contains(t, errs.String(), says, name)
		}
	}
	var out, errs bytes.Buffer
	require.Zero(t, cli.Main([]string{"endpoints", "--node", secure.URL, "--ca-file", own}, "test", nil, &out, &errs), errs.String())
	plain.Close()
	require.Equal(t, 1, cli.Main([]string{"endpoints", "--node", plain.URL}, "test", nil, &out, &errs))
	require.Contains(t, errs.String(), "no node answers")
}
