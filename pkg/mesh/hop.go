package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A hop passes one request on. It does what httputil.ReverseProxy does, with fewer copies and fewer writes to sockets: headers
// are shared, a small body goes out in one write with its head, and so does a small answer.
type hop struct {
	proxy   *proxy
	w       http.ResponseWriter
	r       *http.Request // as it came
	call    *invocation
	control *http.ResponseController
	timer   *headTimer

	streams atomic.Bool // the request's body has not been read to its end
	body    *movingBody // as the target gets it; nil when it was read before
	drained bool        // what is left of the request's body was read, or given up

	mu       sync.Mutex // w is written by the transport, or by a timer, until it is answered
	answered bool
}

// forward sends a request that takes no connection over, and answers with what it gets.
func (p *proxy) forward(ctx context.Context, w http.ResponseWriter, r *http.Request, call *invocation) {
	h := &hop{proxy: p, w: w, r: r, call: call, control: http.NewResponseController(w)}
	defer h.drainBody() // when nobody else reads it any more
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout, _ := p.client.timeoutOf(call.target)
	call.headBy = time.Now().Add(timeout)
	ctx = context.WithValue(ctx, invocationKey{}, call)
	h.timer = startHeadTimer(timeout, func() { cancel(errHeadTimeout) })
	defer h.timer.stop()
	release := h.endBodyWith(ctx)
	defer release()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: h.inform})
	out := &http.Request{Method: r.Method, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: forwarded(r, call.hops), Trailer: r.Trailer, ContentLength: r.ContentLength}
	out.URL = call.path
	call.path.RawQuery, call.path.ForceQuery = r.URL.RawQuery, r.URL.ForceQuery // also what no parser takes
	err := h.takeBody(out)
	if h.streams.Load() {
		// net/http's server otherwise swallows what is left of the request's body when the response begins.
		_ = h.control.EnableFullDuplex()
	}
	var resp *http.Response
	if err == nil {
		resp, err = p.client.send(ctx, call.target, out, out.Header)
		inTime := h.timer.stop()
		h.begin()
		if err == nil {
			defer func() { _ = resp.Body.Close() }()
		}
		switch {
		case err == nil && !inTime:
			err = errHeadTimeout
		case err == nil && resp.StatusCode == http.StatusSwitchingProtocols:
			err = errors.New("the instance switched protocols, which nobody asked for")
		}
	}
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errHeadTimeout) || errors.Is(cause, errSenderTimeout) {
			err = cause
		}
		release()
		gone := callerGone(ctx) // draining may end the context as well
		cancel(nil)
		h.drainBody()
		h.closeBehindBody()
		p.answerUnless(gone, w, r, err)
		return
	}
	h.answer(resp)
}

// endBodyWith ends a Read of the request's body when the context ends, until it is released: a Read of a server's body does not
// end when it is closed, only at its deadline.
func (h *hop) endBodyWith(ctx context.Context) (release func()) {
	if !hasBody(h.r) {
		return func() {}
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		if h.streams.Load() {
			_ = h.control.SetReadDeadline(time.Unix(1, 0))
		}
	})
	return sync.OnceFunc(func() {
		if !stop() {
			<-done // lest it be the deadline of the connection's next request
		}
	})
}

func hasBody(r *http.Request) bool {
	return r.ContentLength != 0 && r.Body != nil && r.Body != http.NoBody
}

// smallBody is how long a request's body may be to be read before it is sent on.
const smallBody = 16 << 10

// takeBody gives out the request's body. A small one is read at once, if it is there: then it can be sent together with the
// head, and sent again. What is not there yet is passed on as it comes.
func (h *hop) takeBody(out *http.Request) error {
	body := h.r.Body
	if !hasBody(h.r) {
		out.ContentLength = 0
		return nil
	}
	h.streams.Store(true)
	if length := h.r.ContentLength; length < 0 || length > smallBody || len(h.r.Header["Expect"]) > 0 {
		h.passBody(out, body)
		return nil
	}
	first := make([]byte, h.r.ContentLength)
	n, err := body.Read(first)
	if n == len(first) && err == nil {
		_, err = body.Read(nil)
	}
	switch {
	case n == len(first) && (err == nil || errors.Is(err, io.EOF)):
		h.streams.Store(!errors.Is(err, io.EOF))
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(first)), nil }
		out.Body, _ = out.GetBody()
		return nil
	case err != nil:
		return invalid("body", "broke off after %d of %d bytes", n, len(first))
	default:
		h.timer.prolong()
		h.passBody(out, io.MultiReader(bytes.NewReader(first[:n]), body))
		return nil
	}
}

// passBody gives out a body that is read as it comes.
func (h *hop) passBody(out *http.Request, from io.Reader) {
	h.body = &movingBody{source: from, timer: h.timer, atEnd: func() { h.streams.Store(false) }}
	out.Body = h.body
}

// closeBehindBody makes the connection end with this response, unless the request's body was read to its end: where that is,
// only its reader knew, and in full duplex net/http's server goes on to read there, whatever it finds, as the next request.
func (h *hop) closeBehindBody() {
	if h.streams.Load() {
		h.w.Header()["Connection"] = []string{"close"}
	}
}

// What is read of a request's body that nobody wanted, to keep the connection: as much as net/http's server reads, for as
// long as a body that is all there takes.
const (
	drainBytes = 256 << 10
	drainTime  = 200 * time.Millisecond
)

// drainBody reads what is left of a request's body that nobody reads any more. In full duplex the server does not before it
// answers, and when its own last attempt, after the handler, meets the body's end, it panics over reading the connection twice
// (seen on Go 1.26). A body that is too long or too slow closes the connection, and so does one that waits to be asked for.
func (h *hop) drainBody() {
	if h.drained || !h.streams.Load() {
		return
	}
	h.drained = true
	if len(h.r.Header["Expect"]) == 0 {
		_ = h.control.SetReadDeadline(time.Now().Add(drainTime))
		if _, err := io.CopyN(io.Discard, h.r.Body, drainBytes); errors.Is(err, io.EOF) {
			_ = h.control.SetReadDeadline(time.Time{})
			h.streams.Store(false)
			return
		}
	}
	_ = h.control.SetReadDeadline(time.Unix(1, 0)) // the server's attempt is not to reach the end
}

// inform passes an informational response on, such as 103 Early Hints. 100 is not passed on: the server sends it when the body is
// first read, which the transport does when the instance has asked for it, and would send a second one.
func (h *hop) inform(status int, header textproto.MIMEHeader) error {
	if status == http.StatusContinue {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.answered {
		return nil
	}
	sent := h.w.Header()
	own := maps.Clone(sent)
	maps.Copy(sent, http.Header(header))
	h.w.WriteHeader(status)
	clear(sent)
	maps.Copy(sent, own)
	return nil
}

// begin ends the time in which informational responses are passed on.
func (h *hop) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answered = true
}

// answer passes the response on. What breaks off is broken off for the caller too.
func (h *hop) answer(resp *http.Response) {
	removeHopByHop(resp.Header)
	header := h.w.Header()
	maps.Copy(header, resp.Header)
	if _, typed := resp.Header["Content-Type"]; !typed {
		header["Content-Type"] = nil // else the server guesses one
	}
	announced := len(resp.Trailer)
	if announced > 0 {
		header["Trailer"] = []string{strings.Join(slices.Sorted(maps.Keys(resp.Trailer)), ", ")}
	}
	if h.body != nil && h.body.closed.Load() {
		h.drainBody()
	}
	h.closeBehindBody()
	h.w.WriteHeader(resp.StatusCode)
	if resp.Body != http.NoBody {
		if err := h.pass(resp); err != nil {
			panic(http.ErrAbortHandler) // for the server to break the connection
		}
	}
	if len(resp.Trailer) == 0 {
		return
	}
	_ = h.control.Flush() // trailers want a body in chunks
	prefix := ""
	if len(resp.Trailer) != announced {
		prefix = http.TrailerPrefix
	}
	for name, values := range resp.Trailer {
		header[prefix+name] = values
	}
}

// headDelay is how long a head waits for the beginning of its body, to go out in one write with it.
const headDelay = time.Millisecond

// pass copies a body. Every part goes out when it comes, save the end, which the server sends when the hop returns.
func (h *hop) pass(resp *http.Response) error {
	buffer, _ := h.proxy.buffers.Get().(*[]byte)
	if buffer == nil {
		b := make([]byte, 32<<10)
		buffer = &b
	}
	defer h.proxy.buffers.Put(buffer)
	begun := false // under mu
	head := time.AfterFunc(headDelay, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !begun {
			_ = h.control.Flush()
		}
	})
	defer func() {
		head.Stop()
		h.mu.Lock() // a flush under way ends before the response does
		begun = true
		h.mu.Unlock()
	}()
	left := resp.ContentLength // negative: unknown
	for first := true; ; first = false {
		n, err := resp.Body.Read(*buffer)
		if first {
			head.Stop()
			h.mu.Lock()
			begun = true
			h.mu.Unlock()
		}
		if n > 0 {
			left -= int64(n)
			if _, err := h.w.Write((*buffer)[:n]); err != nil {
				return fmt.Errorf("answer the caller: %w", err)
			}
			if left != 0 && err == nil {
				if err := h.control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
					return fmt.Errorf("answer the caller: %w", err)
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the response: %w", err)
		}
	}
}
