package jsonbody

import (
	"bytes"
	stdjson "encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"

	"github.com/bannou-mesh/bannou/services/problem"
)

// Decode reads a request's body into a T: what Middleware and the decoder of encoding/json behind it make of it, in one
// pass where all is well.
func Decode[T any](l Limits, w http.ResponseWriter, r *http.Request) (*T, error) {
	l = l.withDefaults()
	body := takeBuffer()
	defer giveBuffer(body)
	if err := l.readInto(body, w, r); err != nil {
		return nil, err
	}
	return decode[T](l, body.Bytes())
}

// decode reads a body whose size is right. The fast way takes only what the exact one takes as well, and takes it for the
// same: the strict decoder refuses duplicate names and invalid UTF-8 by itself, and here names that T does not have, which
// encoding/json may find to be those of T in other letters. What it refuses, the exact way decides, and says why.
func decode[T any](l Limits, body []byte) (*T, error) {
	v := new(T)
	if l.shallow(body) && json.Unmarshal(body, v, json.RejectUnknownMembers(true)) == nil {
		return v, nil
	}
	body, err := l.Check(body)
	if err != nil {
		return nil, err
	}
	v = new(T)
	if err := stdjson.Unmarshal(body, v); err != nil {
		return nil, DecodeError(err)
	}
	return v, nil
}

// shallow reports whether the body is an object that cannot nest too deep, as it opens few enough objects and arrays.
func (l Limits) shallow(body []byte) bool {
	start := bytes.TrimLeft(body, " \t\r\n")
	return len(start) > 0 && start[0] == '{' && bytes.Count(body, []byte{'{'})+bytes.Count(body, []byte{'['}) <= l.MaxDepth
}

// Write answers with v as JSON. What v holds of raw JSON has to be valid.
func Write(w http.ResponseWriter, v any) {
	body := takeBuffer()
	defer giveBuffer(body)
	// With omitempty, raw JSON that is {}, [], "" or null is there all the same: it is a value that somebody saved.
	if err := json.MarshalWrite(body, v, jsonv1.OmitEmptyWithLegacySemantics(true)); err != nil {
		problem.Write(w, err)
		return
	}
	body.WriteByte('\n')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if body.Len() > measured {
		h.Set("Content-Length", strconv.Itoa(body.Len()))
	}
	_, _ = body.WriteTo(w) // the client may be gone; there is no one else to tell
}

// measured is up to what size net/http finds out the length of an answer itself.
const measured = 2048

// buffers are kept up to the size of what is usual.
const keptBuffer = 64 << 10

var buffers = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, 4<<10)) }} //nolint:gochecknoglobals // the use of a pool

func takeBuffer() *bytes.Buffer { return buffers.Get().(*bytes.Buffer) }

func giveBuffer(b *bytes.Buffer) {
	if b.Cap() <= keptBuffer {
		b.Reset()
		buffers.Put(b)
	}
}

// readInto reads the whole body of a request.
func (l Limits) readInto(body *bytes.Buffer, w http.ResponseWriter, r *http.Request) error {
	return l.reading(w, r, func(from io.Reader) (int, error) {
		_, err := body.ReadFrom(from)
		return body.Len(), err
	})
}
