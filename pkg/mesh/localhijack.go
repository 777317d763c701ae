package mesh

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
)

// inform tells the caller of an informational response, if its trace listens.
func (c *localCall) inform(status int, header http.Header) {
	if c.req.Context().Err() != nil { // as over a socket, nobody reads any more
		return
	}
	if trace := httptrace.ContextClientTrace(c.req.Context()); trace != nil && trace.Got1xxResponse != nil {
		_ = trace.Got1xxResponse(status, textproto.MIMEHeader(header.Clone())) // an error is for a transport that reads on
	}
}

// Hijack implements http.Hijacker: the handler gets one end of a pipe, and writes its response there itself. The caller gets
// that response, and with status 101 the other end as its body.
func (w *localWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.hijacked {
		return nil, nil, http.ErrHijacked
	}
	if w.sent != nil {
		return nil, nil, errors.New("hijack: the response has begun")
	}
	w.hijacked = true
	handlers, callers := net.Pipe()
	go w.call.answerRaw(callers)
	return handlers, bufio.NewReadWriter(bufio.NewReader(handlers), bufio.NewWriter(handlers)), nil
}

// answerRaw reads the response that a handler writes by hand. Its goroutine ends with the response's head, for which the
// caller's context does not wait.
func (c *localCall) answerRaw(conn net.Conn) {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-stop:
		case <-c.req.Context().Done():
			_ = conn.Close()
		}
	}()
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, c.req)
	if err != nil {
		_ = conn.Close()
		c.err = fmt.Errorf("the handler took the connection over and wrote no response: %w", err)
		close(c.head)
		return
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = &rawConn{Conn: conn, reader: reader}
	} else {
		resp.Body = &rawBody{ReadCloser: resp.Body, conn: conn}
	}
	c.response = resp
	close(c.head)
}

// A rawConn is the caller's end of a connection that a handler took over; some of it may have been read.
type rawConn struct {
	net.Conn
	reader *bufio.Reader
}

func (c *rawConn) Read(p []byte) (int, error) { return c.reader.Read(p) }

// A rawBody is a response's body that a handler writes to the connection itself.
type rawBody struct {
	io.ReadCloser
	conn net.Conn
}

func (b *rawBody) Close() error { return errors.Join(b.ReadCloser.Close(), b.conn.Close()) }
