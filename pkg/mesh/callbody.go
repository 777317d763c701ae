package mesh

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

// A callBody is the body of an instance's response. Its end, whichever comes first of reading all, an error and closing,
// is the end of the attempt.
type callBody struct {
	io.ReadCloser
	client  *Client
	req     *http.Request
	attempt attempt
	cancel  context.CancelFunc // frees the call's deadline; nil: it has none of its own
	ended   atomic.Bool
}

// A callConn is what a response with status 101 has for a body: a connection.
type callConn struct {
	*callBody
	io.Writer
}

// watch makes the attempt end with the response.
func (c *Client) watch(resp *http.Response, req *http.Request, a attempt) {
	a.answered(c.balancing.clock(), resp.StatusCode)
	if resp.Body == http.NoBody {
		a.end(c.balancing.clock(), succeeded)
		return
	}
	body := &callBody{ReadCloser: resp.Body, client: c, req: req, attempt: a}
	if w, ok := resp.Body.(io.Writer); ok {
		resp.Body = &callConn{body, w}
		return
	}
	resp.Body = body
}

func (b *callBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.end(succeeded)
	case b.req.Context().Err() != nil, errors.Is(err, http.ErrBodyReadAfterClose), errors.Is(err, net.ErrClosed): // by us, of an upgraded connection
		b.end(unknownOutcome)
	default:
		b.end(failed)
	}
	return n, err
}

func (b *callBody) Close() error {
	err := b.ReadCloser.Close()
	b.end(succeeded)
	return err
}

func (b *callBody) end(o callOutcome) {
	if b.ended.Swap(true) {
		return
	}
	b.attempt.end(b.client.balancing.clock(), o)
	if b.cancel != nil {
		b.cancel()
	}
}

// A boundBody frees what a call holds once the response has been read or given up.
type boundBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *boundBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.cancel()
	}
	return n, err
}

func (b *boundBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// A boundConn is what a response with status 101 has for a body.
type boundConn struct {
	*boundBody
	io.Writer
}

// endWithBody has end called, once or more, when the response's body was read or given up.
func endWithBody(resp *http.Response, end context.CancelFunc) {
	if resp.Body == http.NoBody {
		end()
		return
	}
	body := &boundBody{ReadCloser: resp.Body, cancel: end}
	if w, ok := resp.Body.(io.Writer); ok {
		resp.Body = &boundConn{body, w}
		return
	}
	resp.Body = body
}
