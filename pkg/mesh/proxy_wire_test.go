package mesh_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// wire is a connection to a node, on which a test writes what no client would. Texts have PATH for the path of a method.
type wire struct {
	net.Conn
	answers *bufio.Reader
	path    string
}

func dial(t *testing.T, base string) *wire {
	t.Helper()
	address, path, _ := strings.Cut(strings.TrimPrefix(base, "http://"), "/")
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return &wire{conn, bufio.NewReader(conn), "/" + path}
}

func (c *wire) say(t *testing.T, text string) {
	t.Helper()
	_, err := io.WriteString(c.Conn, strings.ReplaceAll(strings.ReplaceAll(text, "PATH", c.path), "\n", "\r\n"))
	require.NoError(t, err)
}

// answer reads one response; err is that of its body.
func (c *wire) answer(t *testing.T, method string) (resp *http.Response, body string, err error) {
	t.Helper()
	resp, err = http.ReadResponse(c.answers, &http.Request{Method: method})
	require.NoError(t, err)
	read, err := io.ReadAll(resp.Body)
	return resp, string(read), err
}

// What two programs may read differently reaches no target; what is left is read by all in one way.
func TestProxyLetsNoRequestHideInAnother(t *testing.T) {
	var seen sync.Map // paths
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.URL.Path, true)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%s %s %d %v %q %v", r.Method, r.URL.Path, r.ContentLength, r.TransferEncoding, body, r.Header["Content-Length"])
	})
	const hidden = "GET PATHsvc/hidden HTTP/1.1\nHost: x\n\n"
	proxied(t, h, mesh.ClientConfig{}, func(t *testing.T, base string) {
		for name, c := range map[string]struct {
			text   string
			status int
		}{
			"two lengths":              {"POST PATHsvc/x HTTP/1.1\nHost: x\nContent-Length: 5\nContent-Length: 0\n\nhello" + hidden, 400},
			"a list of lengths":        {"POST PATHsvc/x HTTP/1.1\nHost: x\nContent-Length: 5, 0\n\nhello" + hidden, 400},
			"a signed length":          {"POST PATHsvc/x HTTP/1.1\nHost: x\nContent-Length: +5\n\nhello" + hidden, 400},
			"an unknown coding":        {"POST PATHsvc/x HTTP/1.1\nHost: x\nTransfer-Encoding: xchunked\n\n0\n\n" + hidden, 501},
			"two codings":              {"POST PATHsvc/x HTTP/1.1\nHost: x\nTransfer-Encoding: chunked, identity\n\n0\n\n" + hidden, 501},
			"the coding twice":         {"POST PATHsvc/x HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n" + hidden, 501},
			"a blank before a colon":   {"POST PATHsvc/x HTTP/1.1\nHost: x\nTransfer-Encoding : chunked\nContent-Length: 5\n\nhello" + hidden, 400},
			"two hosts":                {"GET PATHsvc/x HTTP/1.1\nHost: x\nHost: y\n\n", 400},
			"a chunk without a length": {"POST PATHsvc/x HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\nzz\n" + hidden, 0},
			"a chunk that ends wrong":  {"POST PATHsvc/x HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n1\nxGET PATHsvc/hidden HTTP/1.1\nHost: x\n\n", 0},
			"and nobody is there":      {"POST /v1.0/invoke/nobody/method/x HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\nzz\n" + hidden, 404},
		} {
			conn := dial(t, base)
			id := strings.ReplaceAll(name, " ", "-")
			conn.say(t, strings.Replace(c.text, "svc/x", "svc/"+id, 1))
			resp, _, _ := conn.answer(t, "POST")
			if c.status != 0 {
				assert.Equal(t, c.status, resp.StatusCode, name)
				assert.NotContains(t, collect(&seen), "/svc/"+id)
			} else {
				assert.GreaterOrEqual(t, resp.StatusCode, 400, name)
			}
			_, err := conn.answers.ReadByte()
			require.ErrorIs(t, err, io.EOF, "%s: nothing is read behind it", name)
		}
		assert.NotContains(t, collect(&seen), "/svc/hidden")
		conn := dial(t, base)
		conn.say(t, "POST PATHsvc/x HTTP/1.1\nHost: x\nContent-Length: 3\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n"+hidden)
		resp, body, err := conn.answer(t, "POST")
		require.NoError(t, err)
		assert.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, `POST /svc/x -1 [chunked] "hello" []`, body, "the chunks count, the length is not passed on")
		if _, err := conn.answers.Peek(1); err == nil { // or the connection is closed
			_, body, err = conn.answer(t, "GET")
			require.NoError(t, err)
			assert.Contains(t, body, "GET /svc/hidden", "what is behind it is a request of its own, not hidden")
		}
		seen.Clear()
	})
}

func collect(seen *sync.Map) map[string]bool {
	all := map[string]bool{}
	seen.Range(func(path, _ any) bool {
		all[path.(string)] = true
		return true
	})
	return all
}

func TestProxyLeavesPathsAndQueriesAsTheyAre(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s|%s", r.RequestURI, r.URL.Path) })
	for _, way := range []bool{false, true} {
		w := newWorld(t)
		cfg := mesh.ClientConfig{}
		if way {
			cfg = mesh.ClientConfig{AppID: "bannou-svc", InstanceID: "node-1", Local: h}
		} else {
			w.serve(t, "bannou-svc", "node-2", h)
		}
		proxy := mesh.NewProxy(w.client(t, cfg), mesh.ProxyConfig{}) // without a mux, which cleans paths
		s := serveRaw(t, proxy)
		for path, want := range map[string]string{
			"svc/a%2Fb%2e%2E%2Fc":   "/svc/a%2Fb%2e%2E%2Fc|/svc/a/b../c",
			"svc/%2e%2e/%2e/x":      "/svc/%2e%2e/%2e/x|/svc/.././x",
			"svc//a///b/":           "/svc//a///b/|/svc//a///b/",
			"svc/../x/./y/":         "/svc/../x/./y/|/svc/../x/./y/",
			"/svc":                  "//svc|//svc",
			"":                      "/|/",
			"svc/%00%0d%0a?a=%0d%0": "/svc/%00%0d%0a?a=%0d%0|/svc/\x00\r\n",
			"svc?":                  "/svc?|/svc",
			"svc?a=1;b&&c==d?&%zz":  "/svc?a=1;b&&c==d?&%zz|/svc",
		} {
			conn := dial(t, s+mesh.ProxyPattern+"bannou-svc/method/")
			conn.say(t, "GET PATH"+path+" HTTP/1.1\nHost: x\n\n")
			_, body, err := conn.answer(t, "GET")
			require.NoError(t, err)
			assert.Equal(t, want, body, "%s, in this process: %v", path, way)
		}
	}
}

func TestProxyAnswersOldClients(t *testing.T) {
	proxied(t, newNode(), mesh.ClientConfig{}, func(t *testing.T, base string) {
		for path, length := range map[string]int{"svc/size/5000": 5000, "svc/size/100": 100, "svc/declared": 5000, "svc/trailers": 4} {
			conn := dial(t, base)
			conn.say(t, "GET PATH"+path+" HTTP/1.0\n\n")
			resp, body, err := conn.answer(t, "GET")
			require.NoError(t, err)
			assert.Equal(t, 200, resp.StatusCode)
			assert.Empty(t, resp.TransferEncoding, "an HTTP/1.0 client knows no chunks")
			assert.Len(t, body, length, path)
		}
	})
}

func TestProxyHeadAndStatusesWithoutABody(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		switch r.URL.Path {
		case "/svc/204":
			w.WriteHeader(http.StatusNoContent)
		case "/svc/304":
			w.Header().Set("Content-Length", "77")
			w.WriteHeader(http.StatusNotModified)
		case "/svc/untyped":
			w.Header()["Content-Type"] = nil
			_, _ = io.WriteString(w, "<html>")
		default:
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(make([]byte, 1000))
		}
	})
	proxied(t, h, mesh.ClientConfig{}, func(t *testing.T, base string) {
		conn := dial(t, base) // one for all: each answer ends where it has to
		for _, c := range []struct {
			method, path string
			status       int
			length       int64
			body         int
		}{
			{"HEAD", "svc/x", 200, 1000, 0}, {"GET", "svc/204", 204, 0, 0}, {"GET", "svc/304", 304, 0, 0}, {"HEAD", "svc/204", 204, 0, 0},
			{"GET", "svc/untyped", 200, 6, 6}, {"GET", "svc/x", 200, 1000, 1000},
		} {
			conn.say(t, c.method+" PATH"+c.path+" HTTP/1.1\nHost: x\n\n")
			resp, body, err := conn.answer(t, c.method)
			require.NoError(t, err)
			assert.Equal(t, c.status, resp.StatusCode, c)
			assert.Equal(t, `"1"`, resp.Header.Get("Etag"), c)
			assert.Len(t, body, c.body, c)
			if c.length > 0 {
				assert.Equal(t, fmt.Sprint(c.length), resp.Header.Get("Content-Length"), c)
			}
			if c.path == "svc/untyped" {
				assert.NotContains(t, resp.Header, "Content-Type", "none is made up")
			}
		}
	})
}

func TestProxyAsksForABodyOnlyWhenItIsWanted(t *testing.T) {
	asked := make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/svc/refuse" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		close(asked)
		_, _ = io.Copy(w, r.Body)
	})
	proxied(t, h, mesh.ClientConfig{}, func(t *testing.T, base string) {
		asked = make(chan struct{})
		conn := dial(t, base)
		conn.say(t, "POST PATHsvc/take HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 5\n\n")
		<-asked
		resp, _, err := conn.answer(t, "POST")
		require.NoError(t, err)
		assert.Equal(t, 100, resp.StatusCode)
		conn.say(t, "hello")
		resp, body, err := conn.answer(t, "POST")
		require.NoError(t, err)
		assert.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, "hello", body)

		conn = dial(t, base)
		conn.say(t, "POST PATHsvc/refuse HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 5\n\n")
		resp, _, err = conn.answer(t, "POST")
		require.NoError(t, err)
		assert.Equal(t, 417, resp.StatusCode, "and nothing was asked for")
	})
}

func TestProxyTrailersOfRequestsAndEarlyHints(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %s", r.Trailer.Get("X-Sum"), r.Header.Get("Te"))
	})
	proxied(t, h, mesh.ClientConfig{}, func(t *testing.T, base string) {
		var hints http.Header
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			assert.Equal(t, 103, code)
			hints = http.Header(header)
			return nil
		}})
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"svc/x", nil)
		require.NoError(t, err)
		req.Header.Set("Te", "gzip, trailers")
		req.Trailer = http.Header{"X-Sum": nil}
		req.Body = io.NopCloser(io.MultiReader(strings.NewReader("x"), readerFunc(func([]byte) (int, error) {
			req.Trailer.Set("X-Sum", "7")
			return 0, io.EOF
		})))
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, "7 trailers", string(body))
		assert.Equal(t, "</a.css>", hints.Get("Link"))
		assert.Empty(t, resp.Header.Get("Link"), "hints are not part of the answer")
	})
}

// What is set around the proxy is in the answer, also behind hints.
func TestProxyEarlyHintsLeaveHeadersAlone(t *testing.T) {
	w := newWorld(t)
	n := newNode()
	connections(n)
	w.serve(t, "svc-app", "node-1", n)
	proxy := mesh.NewProxy(w.client(t, mesh.ClientConfig{}), mesh.ProxyConfig{})
	s := serveRaw(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Around", "1")
		proxy.ServeHTTP(w, r)
	}))
	resp, err := http.Get(s + mesh.ProxyPattern + "svc-app/method/svc/hints")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	http.DefaultClient.CloseIdleConnections()
	assert.Equal(t, 202, resp.StatusCode)
	assert.Equal(t, "1", resp.Header.Get("X-Around"))
}

func TestProxyHugeHeaders(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Huge", r.Header.Get("X-Huge")) })
	proxied(t, h, mesh.ClientConfig{}, func(t *testing.T, base string) {
		huge := strings.Repeat("h", 200<<10)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"svc/x", http.NoBody)
		require.NoError(t, err)
		req.Header.Set("X-Huge", huge)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, 200, resp.StatusCode)
		assert.Equal(t, huge, resp.Header.Get("X-Huge"))
		conn := dial(t, base)
		go func() {
			_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", conn.path, strings.Repeat("x", 2<<20))
		}()
		resp, _, _ = conn.answer(t, "GET")
		assert.Equal(t, 431, resp.StatusCode)
	})
}

// A response that breaks off breaks off for the caller too, whether its length was known or not.
func TestProxyBreaksOffWhatBreaksOff(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/svc/known" {
			w.Header().Set("Content-Length", "100000")
		}
		if r.URL.Path == "/svc/head/unknown" {
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(make([]byte, 5000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	proxied(t, h, mesh.ClientConfig{}, func(t *testing.T, base string) {
		for _, path := range []string{"svc/known", "svc/unknown", "svc/head/unknown"} {
			resp, err := http.Get(base + path)
			if path == "svc/head/unknown" && err != nil {
				continue // the head had not gone out
			}
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, resp.Body)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, path)
			require.NoError(t, resp.Body.Close())
		}
	})
}

// A caller that goes away ends the target's request, in whichever direction it was streaming.
func TestProxyCallersThatGoInMidStream(t *testing.T) {
	ended := make(chan error, 1)
	begun := make(chan struct{}, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		switch r.URL.Path {
		case "/svc/upload":
			_, _ = r.Body.Read(make([]byte, 1))
			begun <- struct{}{}
			_, err = io.Copy(io.Discard, r.Body)
		case "/svc/download":
			for err == nil {
				_, err = w.Write(make([]byte, 64<<10))
				if len(begun) == 0 {
					begun <- struct{}{}
				}
			}
		}
		ended <- err
	})
	proxied(t, h, mesh.ClientConfig{}, func(t *testing.T, base string) {
		for _, text := range []string{
			"POST PATHsvc/upload HTTP/1.1\nHost: x\nContent-Length: 100000\n\nxxx",
			"POST PATHsvc/upload HTTP/1.1\nHost: x\nContent-Length: 1000\n\nxxx", // one that is small enough to wait for
			"POST PATHsvc/upload HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n3\nxxx\n",
			"GET PATHsvc/download HTTP/1.1\nHost: x\n\n",
		} {
			conn := dial(t, base)
			conn.say(t, text)
			<-begun
			require.NoError(t, conn.Close())
			select {
			case err := <-ended:
				require.Error(t, err, text)
			case <-time.After(time.Minute):
				t.Fatal("the target's request goes on: ", text)
			}
			if len(begun) > 0 { // a download says so again; the next caller would go before its request was there
				<-begun
			}
		}
	})
}

// Clients that offer HTTP/2 in clear text are answered in HTTP/1.1, and targets do not hear of it.
func TestProxyUpgradesToNoHTTP2(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v", body, slices.Sorted(maps.Keys(r.Header)))
	})
	proxied(t, h, mesh.ClientConfig{}, func(t *testing.T, base string) {
		conn := dial(t, base)
		conn.say(t, "POST PATHsvc/x HTTP/1.1\nHost: x\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\nContent-Length: 5\n\nhello")
		resp, body, err := conn.answer(t, "POST")
		require.NoError(t, err)
		assert.Equal(t, 200, resp.StatusCode)
		assert.Contains(t, body, "hello ")
		assert.NotContains(t, body, "Upgrade")
		assert.NotContains(t, body, "Http2")
	})
}

// Headers that a caller calls hop-by-hop do not take away what the hop itself says.
func TestProxyHopHeadersTakeNothingAway(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s|%s|%s|%s|%s", r.Header.Get("X-Forwarded-For"), r.Header.Get("Bannou-Hops"), r.Header.Get("X-Mine"), r.Header.Get("Keep-Alive"), r.Header.Get("Proxy-Authorization"))
	})
	proxied(t, h, mesh.ClientConfig{}, func(t *testing.T, base string) {
		conn := dial(t, base)
		conn.say(t, "GET PATHsvc/x HTTP/1.1\nHost: x\nConnection: x-forwarded-for ,Bannou-Hops\nConnection: , X-Mine\nX-Mine: 1\nKeep-Alive: 1\nProxy-Authorization: x\nX-Forwarded-For: 192.0.2.1\nX-Forwarded-For: 192.0.2.2\n\n")
		_, body, err := conn.answer(t, "GET")
		require.NoError(t, err)
		assert.Equal(t, "192.0.2.1, 192.0.2.2, 127.0.0.1|1|||", body)
	})
}

// A small body that comes in parts is passed on part by part.
func TestProxySmallBodiesInParts(t *testing.T) {
	parts := make(chan string, 10)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buffer := make([]byte, 100)
		for {
			n, err := r.Body.Read(buffer)
			if n > 0 {
				parts <- string(buffer[:n])
			}
			if err != nil {
				assert.ErrorIs(t, err, io.EOF)
				return
			}
		}
	})
	proxied(t, h, mesh.ClientConfig{}, func(t *testing.T, base string) {
		conn := dial(t, base)
		conn.say(t, "POST PATHsvc/x HTTP/1.1\nHost: x\nContent-Length: 10\n\n12345")
		assert.Equal(t, "12345", <-parts)
		conn.say(t, "67890")
		assert.Equal(t, "67890", <-parts)
		resp, _, err := conn.answer(t, "POST")
		require.NoError(t, err)
		assert.Equal(t, 200, resp.StatusCode)
	})
}

func serveRaw(t *testing.T, h http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		_ = s.Shutdown(context.Background())
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return "http://" + listener.Addr().String()
}
