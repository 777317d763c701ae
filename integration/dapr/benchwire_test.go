package dapr_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Wires are the connections of callers to an API, one for each. They cost as little as may be, so that what is measured is not the program that measures: no
// goroutine stands between a caller and its connection, as with the client of net/http.
type wires struct {
	mu   sync.Mutex
	open map[string]*wire // by caller and host
}

type wire struct {
	conn net.Conn
	in   *bufio.Reader
	out  bytes.Buffer
}

// close ends the connections. New ones are made when they are needed.
func (w *wires) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.open {
		_ = one.conn.Close()
	}
	w.open = map[string]*wire{}
}

func (w *wires) of(ctx context.Context, caller int, host string) (*wire, error) {
	key := fmt.Sprintf("%d %s", caller, host)
	w.mu.Lock()
	defer w.mu.Unlock()
	if one := w.open[key]; one != nil {
		return one, nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	one := &wire{conn: conn, in: bufio.NewReader(conn)}
	w.open[key] = one
	return one, nil
}

// ask makes a request with a body in JSON, reads the answer to its end, and compares its status.
func (w *wires) ask(ctx context.Context, caller int, method, address, body string, status int) error {
	to, err := url.Parse(address)
	if err != nil {
		return err
	}
	one, err := w.of(ctx, caller, to.Host)
	if err != nil {
		return err
	}
	one.out.Reset()
	fmt.Fprintf(&one.out, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", method, to.RequestURI(), to.Host, asJSON, len(body), body)
	if _, err := one.conn.Write(one.out.Bytes()); err != nil {
		return err
	}
	return check(http.ReadResponse(one.in, nil))(status)
}

// serveWire answers requests with as little between as there is in ask, and returns its address.
func serveWire(t *testing.T, answer func(path string, body []byte) (status int, content string)) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var served sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			served.Go(func() { answerWire(conn, answer) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for _, conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		served.Wait()
	})
	return listener.Addr().String()
}

func answerWire(conn net.Conn, answer func(path string, body []byte) (status int, content string)) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	var out bytes.Buffer
	for {
		request, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(request.Body)
		if err != nil && !errors.Is(err, io.EOF) {
			return
		}
		status, content := answer(request.URL.Path, body)
		out.Reset()
		fmt.Fprintf(&out, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", status, http.StatusText(status), asJSON, len(content), content)
		if _, err := conn.Write(out.Bytes()); err != nil || strings.EqualFold(request.Header.Get("Connection"), "close") {
			return
		}
	}
}
