package mesh_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// connections adds what is about the connection to a node's paths.
func connections(n *node) {
	n.mux.HandleFunc("/svc/websocket", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "echo" {
			http.Error(w, "what", http.StatusBadRequest)
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer conn.Close()
		defer context.AfterFunc(r.Context(), func() { _ = conn.Close() })() // which lives as long as the handler
		if _, err := w.Write([]byte("x")); err == nil {
			return // nothing can be written but on the connection
		}
		_, _ = io.WriteString(buffered, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Mine: 1\r\n\r\nhello\n")
		_ = buffered.Flush()
		for {
			line, err := buffered.ReadString('\n')
			if err != nil {
				n.ended <- err
				return
			}
			_, _ = io.WriteString(conn, strings.ToUpper(line))
		}
	})
	n.mux.HandleFunc("/svc/by-hand", func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(buffered, "HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\nX-Mine: 1\r\n\r\nraw")
		_ = buffered.Flush()
	})
	n.mux.HandleFunc("/svc/hangs-up", func(w http.ResponseWriter, _ *http.Request) {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
	})
	n.mux.HandleFunc("/svc/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.WriteHeader(http.StatusProcessing)
		w.WriteHeader(http.StatusAccepted)
	})
	n.mux.HandleFunc("/svc/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		for i := range 3 {
			select {
			case <-n.proceed:
			case <-r.Context().Done():
				return
			}
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
		}
	})
	n.mux.HandleFunc("/svc/unmodified", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "77")
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusNotModified)
	})
}

func TestParityUpgrades(t *testing.T) {
	ways(t, func(t *testing.T, c *mesh.Client, n *node) {
		connections(n)
		req := request("GET", "/svc/websocket", nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		resp, err := c.Do(t.Context(), "svc", req)
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
		assert.Equal(t, "1", resp.Header.Get("X-Mine"))
		conn, ok := resp.Body.(io.ReadWriteCloser)
		require.True(t, ok, "the body is the connection: %T", resp.Body)
		lines := bufio.NewReader(conn)
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "hello\n", line, "what came with the head")
		for _, word := range []string{"one\n", "two\n"} {
			_, err := io.WriteString(conn, word)
			require.NoError(t, err)
			line, err := lines.ReadString('\n')
			require.NoError(t, err)
			assert.Equal(t, strings.ToUpper(word), line)
		}
		require.NoError(t, conn.Close())
		require.ErrorIs(t, <-n.ended, io.EOF, "the handler sees the end")

		resp, body := do(t, c, request("GET", "/svc/websocket", nil))
		assert.Equal(t, 400, resp.StatusCode)
		assert.Equal(t, "what\n", body)
		resp, body = do(t, c, request("GET", "/svc/by-hand", nil))
		assert.Equal(t, 202, resp.StatusCode)
		assert.Equal(t, "1", resp.Header.Get("X-Mine"))
		assert.Equal(t, "raw", body)
		_, err = c.Do(t.Context(), "svc", request("POST", "/svc/hangs-up", strings.NewReader("x")))
		require.Error(t, err)
	})
}

// An upgraded connection lasts longer than a call may.
func TestParityUpgradesOutliveTheTimeout(t *testing.T) {
	waysInTime(t, mesh.ClientConfig{Timeout: 5 * time.Second}, func(t *testing.T, c *mesh.Client, n *node) {
		connections(n)
		req := request("GET", "/svc/websocket", nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		resp, err := c.Do(t.Context(), "svc", req)
		require.NoError(t, err)
		conn := resp.Body.(io.ReadWriteCloser)
		select {
		case err := <-n.ended:
			t.Fatal("the connection was ended: ", err)
		case <-time.After(time.Hour):
		}
		_, err = io.WriteString(conn, "still\n")
		require.NoError(t, err)
		lines := bufio.NewReader(conn)
		_, err = lines.ReadString('\n')
		require.NoError(t, err)
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "STILL\n", line)
		require.NoError(t, conn.Close())
		<-n.ended
	})
}

func TestParityInformationalResponses(t *testing.T) {
	ways(t, func(t *testing.T, c *mesh.Client, n *node) {
		connections(n)
		var told []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			told = append(told, fmt.Sprint(code, header.Get("Link")))
			return nil
		}})
		resp, err := c.Do(ctx, "svc", request("GET", "/svc/hints", nil))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, 202, resp.StatusCode)
		assert.Empty(t, resp.Header.Get("Link"))
		assert.Equal(t, []string{"103</a.css>", "102"}, told)
	})
}

// An event is there when it was flushed, before the handler goes on.
func TestParityEventsArriveWhenTheyAreFlushed(t *testing.T) {
	ways(t, func(t *testing.T, c *mesh.Client, n *node) {
		connections(n)
		resp, err := c.Do(t.Context(), "svc", request("GET", "/svc/events", nil))
		require.NoError(t, err, "the head comes before the first event")
		assert.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
		assert.Equal(t, int64(-1), resp.ContentLength)
		lines := bufio.NewReader(resp.Body)
		for i := range 3 {
			n.proceed <- struct{}{} // the handler waits for it, so that all before has arrived
			line, err := lines.ReadString('\n')
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprintf("data: %d\n", i), line)
			_, err = lines.ReadString('\n')
			require.NoError(t, err)
		}
		_, err = lines.ReadByte()
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, resp.Body.Close())
	})
}

func TestParityNotModified(t *testing.T) {
	ways(t, func(t *testing.T, c *mesh.Client, n *node) {
		connections(n)
		resp, body := do(t, c, request("GET", "/svc/unmodified", nil))
		assert.Equal(t, 304, resp.StatusCode)
		assert.Empty(t, body)
		assert.Empty(t, resp.Header.Get("Content-Length"))
		assert.Empty(t, resp.Header.Get("Content-Type"))
		assert.Equal(t, int64(0), resp.ContentLength)
	})
}
