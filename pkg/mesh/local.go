package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
)

// A localTransport is an http.RoundTripper that calls a handler of this process instead of a socket. To both sides it
// is as if there were one: the handler's context carries no values of the caller's and ends with the call; headers are
// copied; bodies stream; a panic is a 500, or, once the head is out, a body that ends early; a connection can be taken over.
// What is missing is what has no meaning here: deadlines of the connection.
//
// The handler runs on its own goroutine, which ends when the handler returns, also after the caller has gone.
type localTransport struct {
	handler  http.Handler
	log      *slog.Logger
	most     int // requests at once while others could take them; negative: any number
	inFlight atomic.Int64
}

// busy reports whether as many requests are being handled as should be.
func (t *localTransport) busy() bool { return t.most >= 0 && t.inFlight.Load() >= int64(t.most) }

// RoundTrip implements http.RoundTripper.
func (t *localTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if ctx.Err() != nil {
		closeBody(req)
		return nil, context.Cause(ctx)
	}
	// A fresh context: over a socket, values do not travel either.
	serving, cancel := context.WithCancel(context.Background())
	call := &localCall{req: req, head: make(chan struct{}), cancel: cancel}
	call.w = localWriter{call: call, header: http.Header{}, head: req.Method == http.MethodHead}
	inner := serverRequest(serving, req) //nolint:contextcheck // see above
	call.body = inner.Body
	stop := context.AfterFunc(ctx, func() { call.abort(context.Cause(ctx)) })

	t.inFlight.Add(1)
	go t.serve(call, inner, stop) //nolint:contextcheck // see above
	select {
	case <-call.head:
	case <-ctx.Done():
	}
	if ctx.Err() != nil { // abort sees to the handler and to a response that it may have begun
		return nil, context.Cause(ctx)
	}
	if call.err != nil {
		return nil, call.err
	}
	if call.response.StatusCode == http.StatusSwitchingProtocols {
		stop() // from here on the connection does not end with the call, as over a socket
	}
	return call.response, nil
}

func (t *localTransport) serve(call *localCall, inner *http.Request, stop func() bool) {
	defer func() {
		call.finish(t.recovered(recover(), inner))
		stop()
		call.cancel()
		_ = inner.Body.Close()
		t.inFlight.Add(-1)
	}()
	t.handler.ServeHTTP(&call.w, inner)
}

// errPanicked is why a body ends early.
var errPanicked = errors.New("the handler panicked")

func (t *localTransport) recovered(value any, r *http.Request) error {
	switch value {
	case nil:
		return nil
	case http.ErrAbortHandler:
		return fmt.Errorf("%w: %w", http.ErrAbortHandler, io.ErrUnexpectedEOF)
	}
	t.log.Error("a handler panicked", "method", r.Method, "path", r.URL.Path, "panic", value, "stack", string(debug.Stack()))
	return errPanicked
}

// serverRequest makes of a client's request what a server would have read from the wire.
func serverRequest(ctx context.Context, req *http.Request) *http.Request {
	url := *req.URL
	url.Scheme, url.Host, url.User, url.Fragment, url.RawFragment = "", "", nil, "", ""
	if url.Path == "" {
		url.Path = "/"
	}
	inner := (&http.Request{
		Method: req.Method, URL: &url, RequestURI: url.RequestURI(), Host: req.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: req.Header.Clone(),
		Body: http.NoBody, RemoteAddr: "127.0.0.1:0", Trailer: req.Trailer,
	}).WithContext(ctx)
	if inner.Method == "" {
		inner.Method = http.MethodGet
	}
	if inner.Header == nil {
		inner.Header = http.Header{}
	}
	if inner.Host == "" {
		inner.Host = req.URL.Host
	}
	if agent, set := inner.Header["User-Agent"]; !set {
		inner.Header.Set("User-Agent", "Go-http-client/1.1")
	} else if len(agent) == 1 && agent[0] == "" { // as for http.Transport, a caller that has no name
		delete(inner.Header, "User-Agent")
	}
	if req.Body == nil || req.Body == http.NoBody {
		return inner
	}
	inner.Body = &onceBody{ReadCloser: req.Body}
	inner.ContentLength = req.ContentLength
	if inner.ContentLength > 0 {
		inner.Header.Set("Content-Length", strconv.FormatInt(inner.ContentLength, 10))
	} else {
		inner.ContentLength, inner.TransferEncoding = -1, []string{"chunked"}
	}
	return inner
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// A onceBody is the caller's body in the handler's hands; it is closed once, whoever closes it.
type onceBody struct {
	io.ReadCloser
	once sync.Once
	gone atomic.Bool
}

func (b *onceBody) Read(p []byte) (int, error) {
	if b.gone.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.ReadCloser.Read(p)
}

func (b *onceBody) Close() (err error) {
	b.once.Do(func() {
		b.gone.Store(true)
		err = b.ReadCloser.Close()
	})
	return err
}

// A localCall is one call: the handler's goroutine writes to it, the caller's goroutine waits for its head.
type localCall struct {
	req    *http.Request
	body   io.Closer // the request's, as the handler has it
	w      localWriter
	cancel context.CancelFunc // ends the handler's context

	head     chan struct{} // closed when response or err is set
	response *http.Response
	err      error

	trailer http.Header // what follows the body, set before the body ends

	pipe    atomic.Pointer[io.PipeReader] // the streamed body, once there is one
	aborted atomic.Pointer[error]
}

// abort ends a call whose caller has gone.
func (c *localCall) abort(cause error) {
	c.aborted.Store(&cause)
	if pipe := c.pipe.Load(); pipe != nil {
		_ = pipe.CloseWithError(cause) // before the handler hears of it, whose return would be the end of a whole answer
	}
	c.cancel()
	_ = c.body.Close() // a handler that reads it wakes up
}

// finish is called once the handler has returned, with an error if it panicked.
func (c *localCall) finish(err error) {
	w := &c.w
	switch {
	case w.hijacked: // the connection is the handler's, which may have given it to others
	case w.stream != nil:
		_ = w.flushBuffer()
		c.trailer = w.trailer()
		if err != nil {
			err = io.ErrUnexpectedEOF
		}
		_ = w.stream.CloseWithError(err) // nil is the end of the body
	case errors.Is(err, errPanicked):
		c.respond500()
	case err != nil:
		c.err = err
		close(c.head)
	default:
		w.WriteHeader(http.StatusOK)
		c.respondWhole()
	}
}

func (c *localCall) respond500() {
	w := &c.w
	*w = localWriter{call: c, header: http.Header{"Content-Type": {"application/problem+json"}}, head: w.head}
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = w.Write([]byte(`{"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal"}`))
	c.respondWhole()
}

// respondWhole hands over a response that is all in the buffer.
func (c *localCall) respondWhole() {
	w := &c.w
	c.trailer = w.trailer()
	w.completeHeader(w.buffer)
	length, body := w.declared, io.ReadCloser(http.NoBody)
	switch {
	case !bodyAllowed(w.status):
		length = 0
	case w.head && len(w.buffer) == 0: // tells nothing about the length that a GET would have
	case length < 0 && len(c.trailer) == 0:
		length = int64(len(w.buffer))
		w.sent.Set("Content-Length", strconv.Itoa(len(w.buffer)))
	}
	if !w.head && bodyAllowed(w.status) && (len(w.buffer) > 0 || len(c.trailer) > 0 || w.declared > 0) {
		body = &wholeBody{Reader: *bytes.NewReader(w.buffer), call: c, short: w.declared > w.written}
	}
	c.respond(length, body)
}

// respondStream hands over the head; what follows goes through a pipe.
func (c *localCall) respondStream(first []byte) {
	w := &c.w
	w.completeHeader(first)
	pr, pw := io.Pipe()
	w.stream = pw
	c.pipe.Store(pr)
	if cause := c.aborted.Load(); cause != nil {
		_ = pr.CloseWithError(*cause) // abort may have looked for the pipe just before
	}
	if w.head || !bodyAllowed(w.status) {
		c.respond(w.declared, http.NoBody)
		return
	}
	c.respond(w.declared, &pipedBody{pipe: pr, call: c})
}

func (c *localCall) respond(length int64, body io.ReadCloser) {
	status := c.w.status
	c.response = &http.Response{
		Status: strconv.Itoa(status) + " " + http.StatusText(status), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: c.w.sent, Body: body, ContentLength: length, Request: c.req,
	}
	if length < 0 && body != http.NoBody {
		c.response.TransferEncoding = []string{"chunked"}
	}
	if len(c.w.trailers) > 0 {
		c.response.Trailer = http.Header{}
		for _, name := range c.w.trailers {
			c.response.Trailer[name] = nil
		}
	}
	close(c.head)
}

// ended fills the trailers in where the body ends, on the caller's goroutine, as http.Transport does.
func (c *localCall) ended(err error) {
	if !errors.Is(err, io.EOF) || len(c.trailer) == 0 {
		return
	}
	if c.response.Trailer == nil {
		c.response.Trailer = http.Header{}
	}
	for name, values := range c.trailer {
		c.response.Trailer[name] = values
	}
}

// A wholeBody is a response that was complete before its head went out.
type wholeBody struct {
	bytes.Reader
	call  *localCall
	short bool // the handler wrote less than it declared
}

func (b *wholeBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) && b.short {
		return n, io.ErrUnexpectedEOF
	}
	b.call.ended(err)
	return n, err
}

func (b *wholeBody) Close() error { return nil }

// A pipedBody is a streamed response. Closing it before its end tells the handler that nobody listens.
type pipedBody struct {
	pipe *io.PipeReader
	call *localCall
}

func (b *pipedBody) Read(p []byte) (int, error) {
	n, err := b.pipe.Read(p)
	if errors.Is(err, io.ErrClosedPipe) {
		err = http.ErrBodyReadAfterClose
		if cause := b.call.aborted.Load(); cause != nil {
			err = *cause
		}
	}
	b.call.ended(err)
	return n, err
}

func (b *pipedBody) Close() error {
	err := b.pipe.Close() // first: the handler, when it hears of the end, is not to end the body in good order
	b.call.cancel()
	return err
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
