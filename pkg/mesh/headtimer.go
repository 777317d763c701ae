package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// errHeadTimeout is what a call ends with whose response did not begin in time.
var errHeadTimeout = fmt.Errorf("no response began in time: %w", context.DeadlineExceeded)

// A headTimer ends a call, or an attempt, whose response does not begin.
type headTimer struct {
	timeout time.Duration
	held    func() bool // while it says so, the time does not run out; nil: never
	mu      sync.Mutex
	timer   *time.Timer
	over    bool // the head is there, or the time is up
}

func startHeadTimer(timeout time.Duration, fire func()) *headTimer {
	t := &headTimer{timeout: timeout}
	t.start(fire)
	return t
}

func (t *headTimer) start(fire func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(t.timeout, func() {
		if t.held != nil && t.held() {
			t.prolong()
			return
		}
		if t.stop() {
			fire()
		}
	})
}

// stop ends the wait, and reports whether it was not over already.
func (t *headTimer) stop() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return false
	}
	t.over = true
	t.timer.Stop()
	return true
}

// prolong gives the whole time again.
func (t *headTimer) prolong() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.timer.Reset(t.timeout)
	}
}

// A movingBody gives its call more time as long as it moves. Closing it ends its use only: what it is read from belongs to the
// server, which would itself read on there.
type movingBody struct {
	source io.Reader
	timer  *headTimer
	atEnd  func() // is told when all was read
	closed atomic.Bool
}

func (b *movingBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.source.Read(p)
	if n > 0 {
		b.timer.prolong()
	}
	if errors.Is(err, io.EOF) {
		b.atEnd()
	}
	return n, err
}

func (b *movingBody) Close() error {
	b.closed.Store(true)
	return nil
}
