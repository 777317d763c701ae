package memorystate

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

var _ state.InboxDriver = (*Driver)(nil)

// OpenInbox returns the inbox of that name, empty if it is new.
func (d *Driver) OpenInbox(ctx context.Context, cfg state.InboxConfig) (state.Inbox, error) {
	cfg, err := cfg.Complete()
	if err == nil {
		err = d.Ready(ctx)
	}
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	box, ok := d.inboxes[cfg.Name]
	if !ok {
		box = &inbox{driver: d, cfg: cfg, marks: map[string]time.Time{}, working: map[string]chan struct{}{}}
		d.inboxes[cfg.Name] = box
	}
	return box, nil
}

// An inbox lets one caller at a time handle a message.
type inbox struct {
	driver *Driver
	cfg    state.InboxConfig

	mu      sync.Mutex
	marks   map[string]time.Time     // when each message was handled
	order   []string                 // of the marks, the oldest first
	working map[string]chan struct{} // by message; closed when its handler has returned
}

func (b *inbox) Handle(ctx context.Context, messageID string, fn func(tx *sql.Tx) error) (repeated bool, err error) {
	if err := state.CheckMessageID(messageID); err != nil {
		return false, fmt.Errorf("inbox %q: cannot handle a message: %w", b.cfg.Name, err)
	}
	if err := b.driver.Ready(ctx); err != nil {
		return false, err
	}
	repeated, err = b.take(ctx, messageID)
	if repeated || err != nil {
		return repeated, err
	}
	done := false
	defer func() { b.give(messageID, done) }() // also where fn panics
	err = fn(nil)
	done = err == nil
	return false, err
}

// take returns when the message is the caller's, or was handled.
func (b *inbox) take(ctx context.Context, messageID string) (handled bool, err error) {
	for {
		b.mu.Lock()
		b.clean(time.Now())
		_, handled = b.marks[messageID]
		working, busy := b.working[messageID]
		if !handled && !busy {
			b.working[messageID] = make(chan struct{})
		}
		b.mu.Unlock()
		if handled || !busy {
			return handled, nil
		}
		select {
		case <-working:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

func (b *inbox) give(messageID string, done bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.working[messageID])
	delete(b.working, messageID)
	if done {
		b.marks[messageID] = time.Now()
		b.order = append(b.order, messageID)
	}
}

// clean removes marks that are older than the horizon. b.mu is held.
func (b *inbox) clean(now time.Time) {
	for len(b.order) > 0 && now.Sub(b.marks[b.order[0]]) > b.cfg.Horizon {
		delete(b.marks, b.order[0])
		b.order = b.order[1:]
	}
}
