package mesh

import (
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// bufferBeforeStreaming is how much of a response is kept before its head goes to the caller. A response that ends
// within it has a Content-Length; a longer or flushed one is streamed. net/http's server has the same limit, so a
// caller sees the same either way.
const bufferBeforeStreaming = 2048

// A localWriter is the http.ResponseWriter of a handler that is called directly. Like net/http's it is for one
// goroutine.
type localWriter struct {
	call     *localCall
	header   http.Header // the handler's
	sent     http.Header // as it was at WriteHeader: the response's; nil before
	status   int
	head     bool  // HEAD: the body is counted, not sent
	declared int64 // Content-Length as the handler gave it, -1 if it did not
	written  int64
	buffer   []byte
	stream   *io.PipeWriter // once the head is out
	trailers []string       // names declared with the header
	hijacked bool
}

// Header implements http.ResponseWriter.
func (w *localWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. Informational statuses go to the caller's trace, as http.Transport's do.
func (w *localWriter) WriteHeader(status int) {
	if w.sent != nil || w.hijacked {
		return
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		w.call.inform(status, w.header)
		return
	}
	w.status, w.declared, w.sent = status, -1, w.header.Clone()
	if given := w.sent.Get("Content-Length"); given != "" {
		if n, err := strconv.ParseInt(given, 10, 64); err == nil && n >= 0 {
			w.declared = n
		} else {
			w.sent.Del("Content-Length")
		}
	}
	for _, list := range w.sent["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			w.trailers = append(w.trailers, textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)))
		}
	}
}

// Write implements http.ResponseWriter.
func (w *localWriter) Write(p []byte) (int, error) {
	if w.hijacked {
		return 0, http.ErrHijacked
	}
	w.WriteHeader(http.StatusOK)
	if !bodyAllowed(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if w.declared >= 0 && w.written+int64(len(p)) > w.declared {
		return 0, http.ErrContentLength
	}
	w.written += int64(len(p))
	if len(w.buffer)+len(p) <= bufferBeforeStreaming {
		w.buffer = append(w.buffer, p...)
		return len(p), nil
	}
	w.begin(p)
	if err := w.flushBuffer(); err != nil {
		return 0, err
	}
	if w.head {
		return len(p), nil
	}
	return w.stream.Write(p)
}

// WriteString implements io.StringWriter.
func (w *localWriter) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// FlushError implements what http.ResponseController looks for.
func (w *localWriter) FlushError() error {
	if w.hijacked {
		return http.ErrHijacked
	}
	w.WriteHeader(http.StatusOK)
	w.begin(nil)
	return w.flushBuffer()
}

// Flush implements http.Flusher.
func (w *localWriter) Flush() { _ = w.FlushError() }

// EnableFullDuplex is what http.ResponseController looks for: here bodies always go both ways at once.
func (w *localWriter) EnableFullDuplex() error { return nil }

// begin sends the head, if it is not out yet. next is what is about to be written after the buffer.
func (w *localWriter) begin(next []byte) {
	if w.stream != nil {
		return
	}
	first := w.buffer
	if len(first) == 0 {
		first = next
	}
	w.call.respondStream(first)
}

func (w *localWriter) flushBuffer() error {
	if len(w.buffer) == 0 {
		return nil
	}
	buffered := w.buffer
	w.buffer = w.buffer[:0]
	if w.head {
		return nil
	}
	_, err := w.stream.Write(buffered)
	return err
}

// completeHeader adds what net/http's server would, and removes what belongs to trailers. first is the beginning of the
// body.
func (w *localWriter) completeHeader(first []byte) {
	_, typed := w.sent["Content-Type"]
	if !typed && len(first) > 0 && w.sent.Get("Content-Encoding") == "" {
		w.sent.Set("Content-Type", http.DetectContentType(first))
	}
	if _, set := w.sent["Date"]; !set {
		w.sent.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	if !bodyAllowed(w.status) {
		w.sent.Del("Content-Length")
	}
	if w.status == http.StatusNotModified {
		w.sent.Del("Content-Type")
	}
	w.sent.Del("Trailer")
	for _, name := range w.trailers {
		w.sent.Del(name)
	}
	for name := range w.sent {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			w.sent.Del(name)
		}
	}
}

// trailer is what follows the body: the names declared with the header, and those set with http.TrailerPrefix.
func (w *localWriter) trailer() http.Header {
	var trailer http.Header
	add := func(name string, values []string) {
		if trailer == nil {
			trailer = http.Header{}
		}
		trailer[name] = values
	}
	for _, name := range w.trailers {
		if values := w.header[name]; len(values) > 0 {
			add(name, values)
		}
	}
	for name, values := range w.header {
		if after, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			add(textproto.CanonicalMIMEHeaderKey(after), values)
		}
	}
	return trailer
}
