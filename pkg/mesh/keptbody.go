package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// A keptBody is a request's body that outlives an attempt to send it: a transport closes the body of a request that it
// could not send, and this one is closed only when no attempt will follow. It is also closed when the context ends:
// http.Transport waits for a Read of a body that blocks, whatever the context says. Nil for a request without a body, or
// with one that can be made again: http.Transport sends what it knows to be in memory together with the head, in one write.
type keptBody struct {
	source io.ReadCloser
	last   atomic.Bool // no attempt follows
	closed atomic.Bool // the last attempt is through with it
	read   atomic.Bool
	broken atomic.Bool               // the caller's reader failed
	due    atomic.Bool               // the caller's reader was asked for more, and has not given any
	timer  atomic.Pointer[headTimer] // of the attempt under way; nil: it has no time of its own
	once   sync.Once
	unbind func() bool // from the context
}

func keepBody(req *http.Request) *keptBody {
	if req.Body == nil || req.Body == http.NoBody || req.GetBody != nil {
		return nil
	}
	k := &keptBody{source: req.Body}
	k.unbind = context.AfterFunc(req.Context(), k.closeSource)
	return k
}

// attach gives the body to the next attempt.
func (k *keptBody) attach(req *http.Request, first bool) (err error) {
	switch {
	case k != nil:
		req.Body = &attemptBody{kept: k}
		k.closed.Store(false)
	case !first && req.GetBody != nil:
		if req.Body, err = req.GetBody(); err != nil {
			return fmt.Errorf("make the body again for another attempt: %w", err)
		}
	}
	return nil
}

// touched reports whether anything was read, so that the request cannot be sent again.
func (k *keptBody) touched() bool { return k != nil && k.read.Load() }

// broke reports whether the caller's reader failed, so that the request could not be sent whole.
func (k *keptBody) broke() bool { return k != nil && k.broken.Load() }

// awaited reports whether the caller is the one to be waited for, since more of its body is due. It stays so when the body breaks
// off there.
func (k *keptBody) awaited() bool { return k != nil && k.due.Load() }

// prolongs has the body give an attempt its time again whenever it moves.
func (k *keptBody) prolongs(timer *headTimer) {
	if k != nil {
		k.timer.Store(timer)
	}
}

// release says that no attempt follows. The one under way may still be reading; it closes the body when it is through.
func (k *keptBody) release() {
	if k == nil {
		return
	}
	k.last.Store(true)
	if k.closed.Load() {
		k.unbind()
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
	b.kept.read.Store(true) // before the look at closed: Close looks in the other order
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	b.kept.due.Store(true)
	n, err := b.kept.source.Read(p)
	if err == nil || errors.Is(err, io.EOF) {
		if timer := b.kept.timer.Load(); timer != nil {
			timer.prolong()
		}
		b.kept.due.Store(false)
	} else if !b.closed.Load() {
		b.kept.broken.Store(true)
	}
	return n, err
}

// Close closes the source at once if it was read, because a Read may be waiting in it. Otherwise it waits for the next
// attempt, or for release.
func (b *attemptBody) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	b.kept.closed.Store(true)
	if b.kept.last.Load() || b.kept.read.Load() {
		b.kept.unbind()
		b.kept.closeSource()
	}
	return nil
}
