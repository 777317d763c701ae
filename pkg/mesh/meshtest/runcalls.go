package meshtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// CallFeatures are what a way of calling cannot do, each with the reason; empty: it can.
type CallFeatures struct {
	// Trailers of answers come through.
	Trailers string
	// Streams: the beginning of an answer comes before its end.
	Streams string
	// Listing: the client tells the instances of a target, by Route.
	Listing string
	// Unknown: a name that nobody has is told from one whose instances are away.
	Unknown string
	// Refusals: an app's own answer in the form of the carrier's refusals comes through.
	Refusals string
}

// Table is what ways of calling do, as rows of a Markdown table.
func (f CallFeatures) Table(way string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| of calls | %s | native |\n| --- | --- | --- |\n", way)
	for _, row := range [][2]string{{"trailers", f.Trailers}, {"answers as they come", f.Streams}, {"instances listed", f.Listing}, {"an unknown name told from one that is away", f.Unknown}, {"any answer of an app", f.Refusals}} {
		cell := "kept"
		if row[1] != "" {
			cell = "missing: " + row[1]
		}
		fmt.Fprintf(&b, "| %s | %s | kept |\n", row[0], cell)
	}
	return b.String()
}

// RunCalls checks that calls by name do what package mesh promises, by whichever way they go. serve starts an app of that handler, and returns a client that
// calls it, and its name. The client knows no other name.
func RunCalls(t *testing.T, serve func(t *testing.T, app http.Handler) (client *mesh.Client, target string), f CallFeatures) {
	client, target := serve(t, http.HandlerFunc(echo))
	for _, c := range []struct {
		name    string
		missing string
		run     func(t *testing.T, c *mesh.Client, target string)
	}{
		{"verbs, paths, queries, headers and bodies pass", "", callsPass},
		{"answers pass", "", answersPass},
		{"a large body", "", largeBody},
		{"many at once", "", manyAtOnce},
		{"a typed call", "", typedCall},
		{"a deadline ends a call", "", deadlineEnds},
		{"a cancelled call ends", "", cancelEnds},
		{"request id and trace are passed on", "", identitiesPass},
		{"a name that nobody has", "", nobody},
		{"a name that nobody has is unknown", f.Unknown, unknownIsTold},
		{"trailers", f.Trailers, trailersPass},
		{"the beginning comes before the end", f.Streams, beginningComes},
		{"instances are told", f.Listing, instancesAreTold},
		{"an answer like a refusal of the carrier", f.Refusals, refusalPasses},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.missing != "" {
				t.Skip("declared as missing: " + c.missing)
			}
			c.run(t, client, target)
		})
	}
}

// echo is the app: it answers with what it was asked, as its query says.
func echo(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch {
	case q.Has("hang"):
		_, _ = io.Copy(io.Discard, r.Body) // after it the server sees a caller go
		select {
		case <-r.Context().Done():
		case <-time.After(time.Minute):
		}
		return
	case q.Has("trailer"):
		w.Header().Set("Trailer", "Checked")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("Checked", "yes")
		return
	case q.Has("slowly"):
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(30 * time.Second):
		}
		return
	case q.Has("json"):
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("X-Asked", r.Method+" "+r.URL.EscapedPath()+"?"+r.URL.RawQuery)
	w.Header().Set("X-Sent", r.Header.Get("X-Sent"))
	w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
	w.Header().Set("X-Trace", r.Header.Get("Traceparent"))
	w.Header().Add("X-Several", "one")
	w.Header().Add("X-Several", "two")
	if status, err := strconv.Atoi(q.Get("status")); err == nil {
		w.WriteHeader(status)
	}
	_, _ = io.Copy(w, r.Body)
}

func do(t *testing.T, c *mesh.Client, target, method, path string, body []byte) (*http.Response, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req := httptest.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	req.RequestURI = ""
	req.Header.Set("X-Sent", "said ü")
	resp, err := c.Do(ctx, target, req)
	require.NoError(t, err)
	received, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp, received
}

func callsPass(t *testing.T, c *mesh.Client, target string) {
	for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH"} {
		for _, path := range []string{"/a", "/a/b/c", "/a/b?x=1&y=%20&x=2", "/a%2Fb", "/a%20b/", "/a/%C3%A9", "/"} {
			body := []byte(nil)
			if method != "GET" && method != "DELETE" {
				body = []byte(`{"n":9007199254740993}`)
			}
			resp, received := do(t, c, target, method, path, body)
			want, query, _ := strings.Cut(path, "?")
			assert.Equal(t, method+" "+want+"?"+query, resp.Header.Get("X-Asked"))
			assert.Equal(t, "said ü", resp.Header.Get("X-Sent"))
			assert.Equal(t, string(body), string(received))
		}
	}
}

func answersPass(t *testing.T, c *mesh.Client, target string) {
	for _, status := range []int{200, 201, 400, 404, 409, 418, 422, 429, 500, 501, 503} {
		resp, received := do(t, c, target, "POST", "/a?status="+strconv.Itoa(status), []byte("body"))
		assert.Equal(t, status, resp.StatusCode)
		assert.Equal(t, "body", string(received), "%d", status)
		assert.Equal(t, []string{"one", "two"}, resp.Header["X-Several"])
	}
}

func largeBody(t *testing.T, c *mesh.Client, target string) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 3<<16) // 3 MiB
	_, received := do(t, c, target, "POST", "/a", large)
	require.True(t, bytes.Equal(large, received))
}

func manyAtOnce(t *testing.T, c *mesh.Client, target string) {
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for j := range 10 {
				body := fmt.Sprint(i, ":", j)
				_, received := do(t, c, target, "POST", "/a", []byte(body))
				assert.Equal(t, body, string(received), "each gets its own answer")
			}
		})
	}
	all.Wait()
}

func typedCall(t *testing.T, c *mesh.Client, target string) {
	type number struct{ N int64 }
	answer, err := mesh.Invoke[number, number](t.Context(), c, target, "a?json", number{1<<53 + 1})
	require.NoError(t, err)
	require.Equal(t, int64(1<<53+1), answer.N)
	_, err = mesh.Invoke[number, number](t.Context(), c, target, "a?json&status=409", number{1})
	var refused *mesh.ResponseError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, 409, refused.StatusCode)
}

func deadlineEnds(t *testing.T, c *mesh.Client, target string) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := mesh.Invoke[struct{}, struct{}](ctx, c, target, "a?hang", struct{}{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func cancelEnds(t *testing.T, c *mesh.Client, target string) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err := mesh.Invoke[struct{}, struct{}](ctx, c, target, "a?hang", struct{}{})
	require.ErrorIs(t, err, context.Canceled)
}

func identitiesPass(t *testing.T, c *mesh.Client, target string) {
	req := httptest.NewRequest("GET", "/a", nil)
	req.RequestURI = ""
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	req.Header.Set("Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
	req.Header.Set("X-Request-Id", "asked-1")
	resp, err := c.Do(t.Context(), target, req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "asked-1", resp.Header.Get("X-Request-Id"))
	require.Contains(t, resp.Header.Get("X-Trace"), trace)
}

func nobody(t *testing.T, c *mesh.Client, _ string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := mesh.Invoke[struct{}, struct{}](ctx, c, "nobody", "a", struct{}{})
	require.Error(t, err)
	status, _ := mesh.ErrorStatus(err)
	require.Contains(t, []int{http.StatusNotFound, http.StatusServiceUnavailable}, status, "%v", err)
}

func unknownIsTold(t *testing.T, c *mesh.Client, _ string) {
	_, err := mesh.Invoke[struct{}, struct{}](t.Context(), c, "nobody", "a", struct{}{})
	require.ErrorIs(t, err, mesh.ErrUnknownTarget)
}

func trailersPass(t *testing.T, c *mesh.Client, target string) {
	resp, _ := do(t, c, target, "GET", "/a?trailer", nil)
	require.Equal(t, "yes", resp.Trailer.Get("Checked"))
}

func beginningComes(t *testing.T, c *mesh.Client, target string) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req := httptest.NewRequestWithContext(ctx, "GET", "/a?slowly", nil)
	req.RequestURI = ""
	resp, err := c.Do(ctx, target, req)
	require.NoError(t, err)
	first := make([]byte, 5)
	_, err = io.ReadFull(resp.Body, first)
	require.NoError(t, err)
	require.Equal(t, "first", string(first))
	cancel()
	_ = resp.Body.Close()
}

func instancesAreTold(t *testing.T, c *mesh.Client, target string) {
	e, err := c.Route(target)
	require.NoError(t, err)
	require.NotEmpty(t, e.Host)
}

func refusalPasses(t *testing.T, c *mesh.Client, target string) {
	refusal := []byte(`{"errorCode":"ERR_DIRECT_INVOKE","message":"mine"}`)
	resp, received := do(t, c, target, "POST", "/a?json&status=500", refusal)
	require.Equal(t, 500, resp.StatusCode)
	require.Equal(t, string(refusal), string(received))
}
