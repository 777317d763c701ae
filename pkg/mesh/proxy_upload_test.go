package mesh_test

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// gate serves the invoke endpoint of a client; what comes back is where paths of app-ids begin.
func (w *world) gate(t *testing.T, cfg mesh.ClientConfig) (base string, client *mesh.Client) {
	t.Helper()
	client = w.client(t, cfg)
	return w.listen(t, mesh.NewProxy(client, mesh.ProxyConfig{})).URL + mesh.ProxyPattern, client
}

// refusal reads an error of the invoke endpoint.
func (c *wire) refusal(t *testing.T) problem {
	t.Helper()
	resp, body, err := c.answer(t, "POST")
	require.NoError(t, err)
	require.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"), "%d %q", resp.StatusCode, body)
	var p problem
	require.NoError(t, json.Unmarshal([]byte(body), &p), body)
	assert.Equal(t, resp.StatusCode, p.Status)
	return p
}

// What went wrong is told also while the request's body is still on its way, and never as 200.
func TestProxyTellsFailuresInMidUpload(t *testing.T) {
	w := newWorld(t)
	w.register(t, at(endpoint("dead", "node-1"), deadAddress))
	stalled := make(chan struct{})
	w.serve(t, "stalled", "node-2", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stalled }))
	t.Cleanup(func() { close(stalled) })
	base, client := w.gate(t, mesh.ClientConfig{Policies: map[string]mesh.Policy{"stalled": {AttemptTimeout: 50 * time.Millisecond}}})
	for target, want := range map[string]problem{
		"nobody": {Status: 404, Code: "unknown_target"},
		"dead":   {Status: 502, Code: "bad_gateway"},
	} {
		conns := map[string]*wire{}
		for _, head := range []string{"Content-Length: 10\n\nhello", "Content-Length: 100000\n\nhello", "Transfer-Encoding: chunked\n\n5\nhello\n"} {
			conns[head] = dial(t, base+target+"/method/")
			conns[head].say(t, "POST PATHx HTTP/1.1\nHost: x\n"+head) // and no more
		}
		for head, conn := range conns {
			p := conn.refusal(t)
			assert.Equal(t, want.Status, p.Status, "%s %q", target, head)
			assert.Equal(t, want.Code, p.Code, "%s %q", target, head)
			_, err := conn.answers.ReadByte()
			require.ErrorIs(t, err, io.EOF, "what follows would be read as a request")
		}
	}
	// An instance that reads nothing of a body that is longer than what sockets hold.
	conn := dial(t, base+"stalled/method/")
	go func() {
		_, _ = io.WriteString(conn.Conn, "POST "+conn.path+"x HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
		_, _ = conn.Write(make([]byte, 50_000_000))
	}()
	p := conn.refusal(t)
	assert.Equal(t, 504, p.Status)
	assert.Equal(t, "timeout", p.Code)
	states := client.Targets()
	require.Equal(t, "stalled", states[1].AppID)
	assert.NotZero(t, states[1].Instances[0].FailureShare, "it did not take what the caller had")
}

// A caller that says how long it waits is answered then, also when its own body stands still.
func TestProxyEndsStalledUploadsAtTheirDeadline(t *testing.T) {
	n := newNode()
	proxied(t, n, mesh.ClientConfig{Timeout: time.Hour}, func(t *testing.T, base string) {
		conns := map[string]*wire{}
		for _, body := range []string{
			"Content-Length: 10\n\n", "Content-Length: 10\n\nabc", "Content-Length: 100000\n\nabc", "Transfer-Encoding: chunked\n\n3\nabc\n",
		} {
			conns[body] = dial(t, base) // which waits for less than the client's own time
			conns[body].say(t, "POST PATHsvc/echo HTTP/1.1\nHost: x\nBannou-Timeout-Ms: 100\n"+body)
		}
		for body, conn := range conns {
			p := conn.refusal(t)
			assert.Equal(t, 504, p.Status, body)
			assert.Equal(t, "timeout", p.Code, body)
		}
	})
}

// failures returns what a client holds against the only target that it called.
func failures(t *testing.T, client *mesh.Client) (breaker mesh.BreakerState, share float64) {
	t.Helper()
	states := client.Targets()
	require.Len(t, states, 1)
	for _, in := range states[0].Instances {
		share = max(share, in.FailureShare)
	}
	return states[0].Breaker, share
}

// A caller that is slow to send says nothing against whom it sends to.
func TestSlowUploadsBlameNoInstance(t *testing.T) {
	breaker := mesh.Breaker{Consecutive: 2, Lasting: -1}
	t.Run("one that stands still", func(t *testing.T) {
		for _, policy := range []mesh.Policy{
			{Timeout: 5 * time.Second, Breaker: breaker},
			{Timeout: 5 * time.Second, AttemptTimeout: 2 * time.Second, Breaker: breaker},
		} {
			synctest.Test(t, func(t *testing.T) {
				w := newVirtualWorld(t)
				w.serve(t, "svc-app", "node-1", newNode(), "svc")
				base, client := w.gate(t, mesh.ClientConfig{Policy: policy})
				caller := w.caller(t)
				for range 3 {
					pr, pw := io.Pipe()
					go func() { _, _ = pw.Write([]byte("abc")) }() // and no more
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"svc-app/method/svc/echo", pr)
					require.NoError(t, err)
					req.ContentLength = 100000
					begin := time.Now()
					resp, err := caller.Do(req)
					require.NoError(t, err)
					assert.Equal(t, 504, resp.StatusCode)
					assert.GreaterOrEqual(t, time.Since(begin), 5*time.Second, "the call's time ran out, not the attempt's")
					require.NoError(t, resp.Body.Close())
					require.NoError(t, pr.Close())
				}
				state, share := failures(t, client)
				assert.Equal(t, mesh.BreakerClosed, state)
				assert.Zero(t, share)
			})
		}
	})
	t.Run("one that moves for longer than an attempt may take", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newVirtualWorld(t)
			w.serve(t, "svc-app", "node-1", newNode(), "svc")
			base, client := w.gate(t, mesh.ClientConfig{Policy: mesh.Policy{AttemptTimeout: time.Second, Breaker: breaker}})
			pr, pw := io.Pipe()
			defer pr.Close()
			go func() {
				for range 20 {
					pass(900 * time.Millisecond)
					_, _ = pw.Write([]byte("x"))
				}
				_ = pw.Close()
			}()
			resp, err := w.caller(t).Post(base+"svc-app/method/svc/request-trailer", "", pr)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, 200, resp.StatusCode)
			_, share := failures(t, client)
			assert.Zero(t, share)
		})
	})
	t.Run("but one that was sent whole, and is not answered", func(t *testing.T) {
		w := newWorld(t)
		release := make(chan struct{})
		w.serve(t, "svc-app", "node-1", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-release
		}))
		defer close(release)
		base, client := w.gate(t, mesh.ClientConfig{Policy: mesh.Policy{AttemptTimeout: 50 * time.Millisecond}})
		conn := dial(t, base+"svc-app/method/")
		conn.say(t, "POST PATHx HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n")
		assert.Equal(t, 504, conn.refusal(t).Status)
		_, share := failures(t, client)
		assert.NotZero(t, share)
	})
}
