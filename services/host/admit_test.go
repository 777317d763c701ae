package host_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/problem"
)

// Who is let in is asked before any path but the probes' is looked at.
func TestAdmitIsAskedBeforeEverythingButProbes(t *testing.T) {
	metrics, err := host.NewMetrics()
	require.NoError(t, err)
	var asked []string
	cfg := host.Config{Metrics: metrics, Admit: func(r *http.Request, pattern string) (*http.Request, error) {
		asked = append(asked, pattern)
		if r.Header.Get("Let") == "" {
			return nil, problem.New(problem.Forbidden, "not you")
		}
		r.Header.Del("Let")
		return r, nil
	}}
	r := run(t, cfg, &part{name: "a", journal: new(journal), mount: func(mux *http.ServeMux) {
		mux.HandleFunc("POST /a/{x}", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s%s", r.PathValue("x"), r.Header.Get("Let"))
		})
	}}).started()
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		status, _, _ := r.get(path)
		require.Equal(t, 200, status)
	}
	require.Empty(t, asked)
	for _, c := range []struct {
		method, path, pattern string
		status                int // once let in
	}{{"GET", "/openapi.yaml", "GET /openapi.yaml", 200}, {"POST", "/a/1", "POST /a/{x}", 200}, {"GET", "/a/1", "", 405}, {"GET", "/nothing", "", 404}, {"POST", "/healthz", "", 405}} {
		status, body, _ := r.do(c.method, c.path, nil)
		require.Equal(t, 403, status, c)
		require.Contains(t, body, "not you")
		status, body, _ = r.do(c.method, c.path, http.Header{"Let": {"1"}})
		require.Equal(t, c.status, status, c)
		require.Equal(t, []string{c.pattern, c.pattern}, asked)
		if c.pattern == "POST /a/{x}" {
			require.Equal(t, "1", body)
		}
		asked = nil
	}
}

// A pattern that takes the rest of a path gets it as it is.
func TestTheRestOfAPathIsPassedOnVerbatim(t *testing.T) {
	r := run(t, host.Config{}, &part{name: "a", journal: new(journal), mount: func(mux *http.ServeMux) {
		mux.HandleFunc("/a/{x}/rest/{rest...}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.EscapedPath()) })
		mux.HandleFunc("/a/{x}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "other") })
	}}).started()
	for path, want := range map[string]string{
		"/a/1/rest/x":            "200",
		"/a/1/rest/x//y":         "200",
		"/a/1/rest//":            "200",
		"/a/1/rest/./x/../y":     "200",
		"/a/1/rest/%2e%2e/x%2Fy": "200",
		"/a/1/rest/%2e%2e//x":    "200",
		"/a/1/rest/../../2":      "307", // what is left is another path
		"/a//1":                  "307",
		"/a/../b":                "404",
	} {
		conn, err := net.Dial("tcp", r.Addr().String())
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path)
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.Equal(t, want, fmt.Sprint(resp.StatusCode), path)
		if want == "200" {
			body := make([]byte, resp.ContentLength)
			_, err := resp.Body.Read(body)
			if len(body) > 0 && err != nil {
				require.ErrorContains(t, err, "EOF")
			}
			require.Equal(t, path, string(body))
		}
		require.NoError(t, conn.Close())
	}
}
