package jsonbody

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/services/problem"
)

// Limits bounds the bodies of requests. The zero value is the defaults.
type Limits struct {
	// MaxBytes is the largest body. Default: 1 MiB.
	MaxBytes int64

	// MaxDepth is how deep objects and arrays may nest, the body's own object counted. Default: 100, what MySQL allows
	// in a JSON document.
	MaxDepth int

	// ReadTimeout is how long a client may take to send its body. Default: 30 s.
	ReadTimeout time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.MaxBytes <= 0 {
		l.MaxBytes = 1 << 20
	}
	if l.MaxDepth <= 0 {
		l.MaxDepth = 100
	}
	if l.ReadTimeout <= 0 {
		l.ReadTimeout = 30 * time.Second
	}
	return l
}

// Middleware returns one that answers requests with a bad body itself and gives the others to next with the body as
// read and checked. It does not look at Content-Type: what is JSON is welcome under any name.
func Middleware(l Limits) func(next http.Handler) http.Handler {
	l = l.withDefaults()
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := l.read(w, r)
			if err == nil {
				body, err = l.Check(body)
			}
			if err != nil {
				problem.Write(w, err)
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			r.ContentLength = int64(len(body))
			next.ServeHTTP(w, r)
		})
	}
}

func (l Limits) read(w http.ResponseWriter, r *http.Request) (body []byte, err error) {
	err = l.reading(w, r, func(from io.Reader) (int, error) {
		body, err = io.ReadAll(from)
		return len(body), err
	})
	return body, err
}

// reading gives the body of a request to all, which reads it to the end and says how many bytes there were.
func (l Limits) reading(w http.ResponseWriter, r *http.Request, all func(io.Reader) (int, error)) error {
	if r.Body == nil {
		return nil
	}
	limit := begin(w, l.ReadTimeout)
	err := l.bounded(w, r, all)
	limit.end(err != nil)
	return err
}

// bounded is reading without a limit of time.
func (l Limits) bounded(w http.ResponseWriter, r *http.Request, all func(io.Reader) (int, error)) error {
	if r.ContentLength > l.MaxBytes {
		discard(r)
		return l.tooLarge()
	}
	n, err := all(http.MaxBytesReader(w, r.Body, l.MaxBytes))
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		discard(r)
		return l.tooLarge()
	}
	return problem.New(problem.InvalidJSON, "the body ended early after %d bytes; send all of it within %v", n, l.ReadTimeout).Because(err)
}

// discardBytes is how much of a body is read that is refused anyway.
const discardBytes = 64 << 20

// discard reads on to the end of a body that is too large: most clients look for the answer when they have sent
// everything, and would find the connection reset instead. One that asks before it sends is not kept sending.
func discard(r *http.Request) {
	if r.Header.Get("Expect") == "" {
		_, _ = io.CopyN(io.Discard, r.Body, discardBytes) // what is wrong with the rest does not matter
	}
}

func (l Limits) tooLarge() error {
	return problem.New(problem.BodyTooLarge, "the body is larger than the %d bytes that this endpoint takes", l.MaxBytes)
}

// Check returns the body if it is one JSON object as the package comment has it, {} for an empty one, and otherwise a
// problem.
func (l Limits) Check(body []byte) ([]byte, error) {
	l = l.withDefaults()
	if len(bytes.TrimLeft(body, " \t\r\n")) == 0 {
		return []byte("{}"), nil
	}
	d := jsontext.NewDecoder(bytes.NewReader(body))
	if d.PeekKind() != jsontext.KindBeginObject {
		if _, err := d.ReadToken(); err != nil {
			return nil, syntax(body, d, err)
		}
		return nil, problem.New(problem.InvalidJSON, "the body has to be one JSON object, such as {}")
	}
	for {
		_, err := d.ReadToken()
		switch {
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return nil, syntax(body, d, err)
		case d.StackDepth() > l.MaxDepth:
			line, column := position(body, d.InputOffset())
			return nil, problem.New(problem.InvalidJSON,
				"the body nests deeper than %d levels at line %d, column %d", l.MaxDepth, line, column)
		case d.StackDepth() == 0 && len(bytes.TrimLeft(body[d.InputOffset():], " \t\r\n")) > 0:
			line, column := position(body, d.InputOffset())
			return nil, problem.New(problem.InvalidJSON,
				"the body goes on after its JSON object at line %d, column %d; send one object", line, column)
		}
	}
}

// syntax says where and why the body is not JSON.
func syntax(body []byte, d *jsontext.Decoder, err error) error {
	offset, why := d.InputOffset(), err.Error()
	if s, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		offset, why = s.ByteOffset, s.Err.Error()
	}
	line, column := position(body, offset)
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		why = "two members of one object have the same name"
	case errors.Is(err, io.ErrUnexpectedEOF):
		why = "it ends in the middle"
	}
	return problem.New(problem.InvalidJSON, "the body is not valid JSON at line %d, column %d: %s", line, column, why).
		Because(err)
}

// position counts lines and bytes from 1.
func position(body []byte, offset int64) (line, column int) {
	before := body[:min(max(offset, 0), int64(len(body)))]
	line = 1 + bytes.Count(before, []byte("\n"))
	column = len(before) - bytes.LastIndexByte(before, '\n')
	return line, column
}
