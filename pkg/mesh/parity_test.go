package mesh_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// Every case here is run twice: over a socket and by direct dispatch. The service under test cannot tell which.

// A node is a handler with what it was seen to do.
type node struct {
	mux   *http.ServeMux
	ended chan error // the context's error of a handler that waited

	proceed chan struct{} // lets /svc/slowly go on
}

func newNode() *node {
	n := &node{mux: http.NewServeMux(), ended: make(chan error, 1), proceed: make(chan struct{})}
	n.mux.HandleFunc("/svc/echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Method", r.Method)
		w.Header().Set("X-Query", r.URL.RawQuery)
		w.Header().Set("X-Length", strconv.FormatInt(r.ContentLength, 10))
		w.Header().Set("X-Encoding", strings.Join(r.TransferEncoding, ","))
		for _, v := range r.Header["X-Multi"] {
			w.Header().Add("X-Multi", v)
		}
		_ = http.NewResponseController(w).EnableFullDuplex() // net/http's server stops reading otherwise
		_, _ = io.Copy(w, r.Body)
	})
	n.mux.HandleFunc("/svc/path/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s|%s|%s|%s", r.URL.Path, r.URL.EscapedPath(), r.RequestURI, r.Proto)
	})
	n.mux.HandleFunc("/svc/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.PathValue("code"))
		w.Header().Set("X-Before", "1")
		w.WriteHeader(code)
		w.Header().Set("X-After", "1")
		w.WriteHeader(599)
		_, err := io.WriteString(w, "body")
		if (err != nil) != (code == 204 || code == 304) {
			panic(err)
		}
	})
	n.mux.HandleFunc("/svc/size/{n}", func(w http.ResponseWriter, r *http.Request) {
		size, _ := strconv.Atoi(r.PathValue("n"))
		for chunk := range sliceOf(size, 1000) {
			_, _ = w.Write(chunk)
		}
	})
	n.mux.HandleFunc("/svc/declared", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5000")
		_, _ = w.Write(make([]byte, 5000))
		if _, err := w.Write([]byte("more")); !errors.Is(err, http.ErrContentLength) {
			panic(err)
		}
	})
	n.mux.HandleFunc("/svc/short", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = w.Write([]byte("123"))
	})
	n.mux.HandleFunc("/svc/slowly", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "12345")
		w.(http.Flusher).Flush()
		select {
		case <-n.proceed:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "67890")
	})
	n.mux.HandleFunc("/svc/html", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html><p>x</html>") })
	n.mux.HandleFunc("/svc/trailers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "42")
		w.Header().Set(http.TrailerPrefix+"X-Late", "43")
	})
	n.mux.HandleFunc("/svc/request-trailer", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, r.Trailer.Get("X-Sum"))
	})
	n.mux.HandleFunc("/svc/pingpong", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		buffer := make([]byte, 100)
		for {
			k, err := r.Body.Read(buffer)
			_, _ = w.Write(bytes.ToUpper(buffer[:k]))
			w.(http.Flusher).Flush()
			if err != nil {
				return
			}
		}
	})
	n.mux.HandleFunc("/svc/panic", func(http.ResponseWriter, *http.Request) { panic("boom") })
	n.mux.HandleFunc("/svc/panic-late", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "begun")
		w.(http.Flusher).Flush()
		panic("boom")
	})
	n.mux.HandleFunc("/svc/abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	wait := func(r *http.Request) {
		<-r.Context().Done()
		n.ended <- r.Context().Err()
	}
	n.mux.HandleFunc("/svc/wait", func(_ http.ResponseWriter, r *http.Request) { wait(r) })
	n.mux.HandleFunc("/svc/wait-body", func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		n.ended <- err
	})
	n.mux.HandleFunc("/svc/flush-wait", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "event: 1\n\n")
		w.(http.Flusher).Flush()
		wait(r)
	})
	n.mux.HandleFunc("/svc/values", func(w http.ResponseWriter, r *http.Request) {
		_, bounded := r.Context().Deadline()
		fmt.Fprintf(w, "%v %v %s %s", r.Context().Value(contextKey{}), bounded, r.Header.Get("X-Request-Id"), r.Header.Get("User-Agent"))
	})
	return n
}

type contextKey struct{}

// ServeHTTP has a recoverer around the services, as every node has. What it turns into a 500 over a socket is a 500
// without it by direct dispatch.
func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tracked := &begun{ResponseWriter: w}
	defer func() {
		if v := recover(); v != nil {
			if v == http.ErrAbortHandler || tracked.wrote { //nolint:errorlint // the panic's value itself
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(http.StatusInternalServerError)
		}
	}()
	n.mux.ServeHTTP(tracked, r)
}

type begun struct {
	http.ResponseWriter
	wrote bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.wrote = true
	return b.ResponseWriter.Write(p)
}
func (b *begun) Flush()                      { b.ResponseWriter.(http.Flusher).Flush() }
func (b *begun) Unwrap() http.ResponseWriter { return b.ResponseWriter }

func sliceOf(size, step int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for size > 0 {
			k := min(step, size)
			if !yield(bytes.Repeat([]byte("x"), k)) {
				return
			}
			size -= k
		}
	}
}

// ways are the two clients of one handler.
func ways(t *testing.T, run func(t *testing.T, c *mesh.Client, n *node)) {
	t.Helper()
	t.Run("socket", func(t *testing.T) {
		n, w := newNode(), newWorld(t)
		s := httptest.NewUnstartedServer(n)
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		s.Start()
		t.Cleanup(s.Close)
		w.register(t, at(endpoint("bannou", "node-1", "svc"), s.Listener.Addr().String()))
		run(t, w.client(t, mesh.ClientConfig{}), n)
	})
	t.Run("direct", func(t *testing.T) {
		n, w := newNode(), newWorld(t)
		run(t, w.client(t, mesh.ClientConfig{AppID: "bannou", InstanceID: "node-1", Local: n, LocalServices: []string{"svc"}}), n)
	})
}

func do(t *testing.T, c *mesh.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(t.Context(), "svc", req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp, string(body)
}

func request(method, path string, body io.Reader) *http.Request {
	req, err := http.NewRequest(method, path, body)
	if err != nil {
		panic(err)
	}
	return req
}

func TestParityMethodsAndHeaders(t *testing.T) {
	ways(t, func(t *testing.T, c *mesh.Client, _ *node) {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
			req := request(method, "/svc/echo?b=2&a=1;x&%zz", strings.NewReader("hello"))
			req.Header["X-Multi"] = []string{"one", "two"}
			resp, body := do(t, c, req)
			assert.Equal(t, 200, resp.StatusCode)
			assert.Equal(t, method, resp.Header.Get("X-Method"))
			assert.Equal(t, "b=2&a=1;x&%zz", resp.Header.Get("X-Query"))
			assert.Equal(t, []string{"one", "two"}, resp.Header["X-Multi"])
			assert.Equal(t, "5", resp.Header.Get("X-Length"))
			assert.Equal(t, "hello", body)
			assert.Equal(t, int64(5), resp.ContentLength)
			assert.Equal(t, "5", resp.Header.Get("Content-Length"))
			assert.Equal(t, "text/plain; charset=utf-8", resp.Header.Get("Content-Type"))
			assert.NotEmpty(t, resp.Header.Get("Date"))
			assert.Equal(t, "200 OK", resp.Status)
			assert.Equal(t, "HTTP/1.1", resp.Proto)
		}
	})
}

func TestParityHead(t *testing.T) {
	ways(t, func(t *testing.T, c *mesh.Client, _ *node) {
		for path, length := range map[string]int64{"/svc/size/100": 100, "/svc/size/5000": -1, "/svc/declared": 5000, "/svc/size/0": -1} {
			resp, body := do(t, c, request("HEAD", path, nil))
			assert.Equal(t, 200, resp.StatusCode)
			assert.Empty(t, body)
			assert.Equal(t, length, resp.ContentLength, path)
		}
	})
}

func TestParityPaths(t *testing.T) {
	ways(t, func(t *testing.T, c *mesh.Client, _ *node) {
		for path, want := range map[string]string{
			"/svc/path/a%2Fb%20c?q":  "/svc/path/a/b c|/svc/path/a%2Fb%20c|/svc/path/a%2Fb%20c?q|HTTP/1.1",
			"/svc/path/%C3%A9/":      "/svc/path/é/|/svc/path/%C3%A9/|/svc/path/%C3%A9/|HTTP/1.1",
			"http://svc/svc/path/?":  "/svc/path/|/svc/path/|/svc/path/?|HTTP/1.1",
			"/svc/path/with(parens)": "/svc/path/with(parens)|/svc/path/with(parens)|/svc/path/with(parens)|HTTP/1.1",
		} {
			_, body := do(t, c, request("GET", path, nil))
			assert.Equal(t, want, body)
		}
	})
}

func TestParityStatuses(t *testing.T) {
	ways(t, func(t *testing.T, c *mesh.Client, _ *node) {
		for _, code := range []int{200, 201, 204, 301, 304, 400, 404, 409, 418, 500, 503} {
			resp, body := do(t, c, request("GET", fmt.Sprintf("/svc/status/%d", code), nil))
			assert.Equal(t, code, resp.StatusCode)
			assert.Equal(t, "1", resp.Header.Get("X-Before"))
			assert.Empty(t, resp.Header.Get("X-After"), "the head is as it was at WriteHeader")
			if code == 204 || code == 304 {
				assert.Empty(t, body)
				assert.Empty(t, resp.Header.Get("Content-Length"))
			} else {
				assert.Equal(t, "body", body)
			}
		}
		resp, _ := do(t, c, request("GET", "/svc/nothing", nil))
		assert.Equal(t, 404, resp.StatusCode)
	})
}

func TestParityBodies(t *testing.T) {
	ways(t, func(t *testing.T, c *mesh.Client, _ *node) {
		for _, size := range []int{0, 1, 2047, 2048, 2049, 4096, 65536, 5 << 20} {
			content := make([]byte, size)
			chacha := rand.NewChaCha8([32]byte{1, 2, 3})
			_, _ = chacha.Read(content)
			for _, sized := range []bool{true, false} {
				closed := &closing{Reader: bytes.NewReader(content), done: make(chan struct{})}
				req := request("POST", "/svc/echo", closed)
				want := "-1"
				if sized {
					req.ContentLength, want = int64(size), strconv.Itoa(size)
				}
				if size == 0 {
					req.Body, want = http.NoBody, "0"
				}
				resp, body := do(t, c, req)
				assert.Equal(t, want, resp.Header.Get("X-Length"), size)
				assert.Equal(t, sha256.Sum256(content), sha256.Sum256([]byte(body)), "%d bytes", size)
				if size > 0 {
					select {
					case <-closed.done:
					case <-time.After(time.Minute):
						t.Fatal("the request's body is not closed")
					}
				}
			}
			resp, _ := do(t, c, request("GET", fmt.Sprintf("/svc/size/%d", size), nil))
			length := int64(size)
			if size > 2048 {
				length = -1
			}
			assert.Equal(t, length, resp.ContentLength, size)
		}
		resp, body := do(t, c, request("GET", "/svc/declared", nil))
		assert.Equal(t, int64(5000), resp.ContentLength)
		assert.Len(t, body, 5000)
		resp, _ = do(t, c, request("GET", "/svc/html", nil))
		assert.Equal(t, "text/html; charset=utf-8", resp.Header.Get("Content-Type"))
		resp, err := c.Do(t.Context(), "svc", request("GET", "/svc/short", nil))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	})
}

// closing tells when it is closed.
type closing struct {
	io.Reader
	done chan struct{}
}

func (c *closing) Close() error {
	close(c.done) // twice would panic
	return nil
}

func TestParityTrailers(t *testing.T) {
	ways(t, func(t *testing.T, c *mesh.Client, _ *node) {
		resp, body := do(t, c, request("GET", "/svc/trailers", nil))
		assert.Equal(t, "body", body)
		assert.Empty(t, resp.Header.Get("Trailer"))
		assert.Equal(t, http.Header{"X-Sum": {"42"}, "X-Late": {"43"}}, resp.Trailer)

		req := request("POST", "/svc/request-trailer", nil)
		req.Trailer = http.Header{"X-Sum": nil}
		req.Body = io.NopCloser(io.MultiReader(strings.NewReader("x"), readerFunc(func([]byte) (int, error) {
			req.Trailer.Set("X-Sum", "7")
			return 0, io.EOF
		})))
		_, body = do(t, c, req)
		assert.Equal(t, "7", body)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestParityStreamsBothWays(t *testing.T) {
	ways(t, func(t *testing.T, c *mesh.Client, _ *node) {
		pr, pw := io.Pipe()
		resp, err := c.Do(t.Context(), "svc", request("POST", "/svc/pingpong", pr))
		require.NoError(t, err, "the head comes while the request's body is still open")
		for _, word := range []string{"one", "two", "three"} {
			_, err := pw.Write([]byte(word))
			require.NoError(t, err)
			answer := make([]byte, len(word))
			_, err = io.ReadFull(resp.Body, answer)
			require.NoError(t, err)
			assert.Equal(t, strings.ToUpper(word), string(answer))
		}
		require.NoError(t, pw.Close())
		rest, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Empty(t, rest)
		require.NoError(t, resp.Body.Close())
	})
}

func TestParityPanics(t *testing.T) {
	ways(t, func(t *testing.T, c *mesh.Client, _ *node) {
		resp, _ := do(t, c, request("GET", "/svc/panic", nil))
		assert.Equal(t, 500, resp.StatusCode)
		_, err := c.Do(t.Context(), "svc", request("GET", "/svc/abort", nil))
		require.Error(t, err)
		resp, err = c.Do(t.Context(), "svc", request("GET", "/svc/panic-late", nil))
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.Equal(t, "begun", string(body))
		resp.Body.Close()
	})
}

func TestParityTheCallerGoes(t *testing.T) {
	for when, goes := range map[string]func(t *testing.T, c *mesh.Client, n *node){
		"before the head": func(t *testing.T, c *mesh.Client, n *node) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := c.Do(ctx, "svc", request("GET", "/svc/wait", nil))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, <-n.ended, context.Canceled)
		},
		"while its body is read": func(t *testing.T, c *mesh.Client, n *node) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			pr, pw := io.Pipe()
			_, err := c.Do(ctx, "svc", request("POST", "/svc/wait-body", pr))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Error(t, <-n.ended, "the handler's read ends")
			_, err = pw.Write([]byte("x"))
			require.ErrorIs(t, err, io.ErrClosedPipe, "the caller's body is closed")
		},
		"during the response, by its context": func(t *testing.T, c *mesh.Client, n *node) {
			ctx, cancel := context.WithCancel(t.Context())
			resp, err := c.Do(ctx, "svc", request("GET", "/svc/flush-wait", nil))
			require.NoError(t, err)
			first := make([]byte, 10)
			_, err = io.ReadFull(resp.Body, first)
			require.NoError(t, err)
			cancel()
			_, err = resp.Body.Read(first)
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, <-n.ended, context.Canceled)
			resp.Body.Close()
		},
		"during the response, by closing it": func(t *testing.T, c *mesh.Client, n *node) {
			bounded, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for _, ctx := range []context.Context{t.Context(), bounded} {
				resp, err := c.Do(ctx, "svc", request("GET", "/svc/flush-wait", nil))
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.ErrorIs(t, <-n.ended, context.Canceled)
			}
		},
		"before it began": func(t *testing.T, c *mesh.Client, _ *node) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			closed := &closing{Reader: strings.NewReader("x"), done: make(chan struct{})}
			_, err := c.Do(ctx, "svc", request("POST", "/svc/echo", closed))
			require.ErrorIs(t, err, context.Canceled)
			<-closed.done
		},
	} {
		t.Run(when, func(t *testing.T) { waysInTime(t, mesh.ClientConfig{}, goes) })
	}
}

func TestParityContextValuesStayAtHome(t *testing.T) {
	ways(t, func(t *testing.T, c *mesh.Client, _ *node) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ctx = mesh.WithRequestID(context.WithValue(ctx, contextKey{}, "mine"), "request-7")
		resp, err := c.Do(ctx, "svc", &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "svc/values"}})
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, "<nil> false request-7 Go-http-client/1.1", string(body))
	})
}

func TestDirectDispatchTurnsAPanicInto500(t *testing.T) {
	w := newWorld(t)
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Secret", "1")
		_, _ = w.Write([]byte("half"))
		panic("boom")
	})
	c := w.client(t, mesh.ClientConfig{AppID: "bannou", Local: h, LocalServices: []string{"svc"}})
	resp, body := do(t, c, request("GET", "/svc/x", nil))
	assert.Equal(t, 500, resp.StatusCode)
	assert.Empty(t, resp.Header.Get("X-Secret"))
	assert.Contains(t, body, `"code":"internal"`)
	assert.NotContains(t, body, "boom")
}

// What ends because its caller has gone is never read as a whole answer, however soon its handler returns.
func TestDirectDispatchCutShortIsNoEnd(t *testing.T) {
	w := newWorld(t)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	c := w.client(t, mesh.ClientConfig{AppID: "bannou", Local: h, LocalServices: []string{"svc"}})
	for range 5000 {
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := c.Do(ctx, "svc", request("GET", "/svc/x", nil))
		require.NoError(t, err)
		go cancel()
		_, err = io.ReadAll(resp.Body)
		require.ErrorIs(t, err, context.Canceled)
		resp.Body.Close()
	}
}
