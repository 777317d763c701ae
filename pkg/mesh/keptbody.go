package mesh

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// A keptBody is a request's body that outlives an attempt to send it: a transport closes the body of a request that it
// could not send, and this one is closed only when no attempt will follow. Nil for a request without a body.
type keptBody struct {
	source io.ReadCloser
	last   atomic.Bool // no attempt follows
	closed atomic.Bool // the last attempt is through with it
	once   sync.Once
	read   atomic.Bool
}

func keepBody(req *http.Request) *keptBody {
	if req.Body == nil || req.Body == http.NoBody {
		return nil
	}
	return &keptBody{source: req.Body}
}

// attach gives the body to the next attempt.
func (k *keptBody) attach(req *http.Request) {
	if k != nil {
		req.Body = &attemptBody{kept: k}
		k.closed.Store(false)
	}
}

// touched reports whether anything was read, so that the request cannot be sent again.
func (k *keptBody) touched() bool { return k != nil && k.read.Load() }

// release says that no attempt follows. The one under way may still be reading; it closes the body when it is through.
func (k *keptBody) release() {
	if k == nil {
		return
	}
	k.last.Store(true)
	if k.closed.Load() {
		k.closeSource()
	}
}

func (k *keptBody) closeSource() { k.once.Do(func() { _ = k.source.Close() }) }

// An attemptBody is the body as one attempt has it.
type attemptBody struct {
	kept   *keptBody
	closed atomic.Bool
}

func (b *attemptBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	b.kept.read.Store(true)
	return b.kept.source.Read(p)
}

func (b *attemptBody) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	b.kept.closed.Store(true)
	if b.kept.last.Load() {
		b.kept.closeSource()
	}
	return nil
}
