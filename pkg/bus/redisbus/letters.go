package redisbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// lettersLease is how long a reader of the dead letters that is gone keeps others out.
const lettersLease = 15 * time.Second

// letters is one reading of the store.
type letters struct {
	d      *Driver
	lock   string
	token  string
	count  int64
	at     string
	end    string // the last entry when it was opened
	page   []redis.XMessage
	stop   context.CancelFunc
	renews sync.WaitGroup
	held   atomic.Int64 // when the lease was last known to be held, in nanoseconds since start; negative: it is lost
	start  time.Time
}

// Letters opens the store. A key in Redis keeps other readers out, those of other nodes too, until it is closed.
func (d *Driver) Letters(ctx context.Context) (bus.Letters, error) { //nolint:contextcheck // the lease lives until Close
	if d.closing.Err() != nil {
		return nil, bus.ErrClosed
	}
	l := &letters{d: d, lock: "bannou:{" + d.store() + "}:reader", token: uuid.NewString(), at: "-", start: time.Now()}
	for {
		asked := time.Since(l.start)
		won, err := d.client.SetNX(ctx, l.lock, l.token, lettersLease).Result()
		if err == nil && won {
			l.held.Store(int64(asked))
			break
		}
		if err == nil {
			err = errors.New("another reads the dead letters")
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-d.closing.Done():
			return nil, bus.ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: open the dead letters: %w (%w)", bus.ErrUnavailable, context.Cause(ctx), err)
		}
	}
	renewing, stop := context.WithCancel(d.closing)
	l.stop = stop
	l.renews.Go(func() { l.renew(renewing) })
	if err := l.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: open the dead letters: %w", bus.ErrUnavailable, err), l.Close(context.WithoutCancel(ctx)))
	}
	return l, nil
}

func (l *letters) open(ctx context.Context) error {
	last, err := lastMark(ctx, l.d.client, l.d.store())
	if err != nil {
		return err
	}
	l.end = last.String()
	l.count, err = l.d.client.XLen(ctx, l.d.store()).Result()
	return err
}

func (l *letters) renew(ctx context.Context) {
	ticker := time.NewTicker(lettersLease / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			_ = l.relock(ctx) // Next tells of it
		case <-ctx.Done():
			return
		}
	}
}

// relock makes the lease longer, if it is still held.
func (l *letters) relock(ctx context.Context) error {
	asked := time.Since(l.start)
	held, err := l.d.run.relock.Run(ctx, l.d.client, []string{l.lock}, l.token, lettersLease.Milliseconds()).Bool()
	switch {
	case err != nil:
		return fmt.Errorf("%w: read the dead letters: %w", bus.ErrUnavailable, err)
	case !held:
		l.held.Store(-1)
	case l.held.Load() >= 0:
		l.held.Store(int64(asked))
	}
	return nil
}

// lost is an error when the lease has run out: another may be reading, and would replay the same letters.
func (l *letters) lost() error {
	held := time.Duration(l.held.Load())
	if held >= 0 && time.Since(l.start)-held < lettersLease {
		return nil
	}
	return fmt.Errorf("%w: the lease of this reading of the dead letters ran out; read again", bus.ErrUnavailable)
}

func (l *letters) Count() int64 { return l.count }

func (l *letters) Next(ctx context.Context) (bus.Delivery, error) {
	if len(l.page) == 0 {
		if err := l.relock(ctx); err != nil {
			return nil, err
		}
	}
	if err := l.lost(); err != nil {
		return nil, err
	}
	if len(l.page) == 0 {
		page, err := l.d.client.XRangeN(ctx, l.d.store(), l.at, l.end, 50).Result()
		if err != nil {
			return nil, fmt.Errorf("%w: read the dead letters: %w", bus.ErrUnavailable, err)
		}
		if len(page) == 0 {
			return nil, io.EOF
		}
		l.page = page
	}
	next := l.page[0]
	l.page, l.at = l.page[1:], "("+next.ID
	m, _, err := decode(next.Values)
	if err != nil { // somebody else's: it is shown as it is
		m = &bus.Message{ID: next.ID, Headers: make(map[string]string)}
		for name, value := range next.Values {
			m.Headers["x-entry-"+name], _ = value.(string)
		}
	}
	if m.Exchange == "" {
		m.Exchange = l.d.cfg.DeadLetterExchange
	}
	return &letter{d: l.d, id: next.ID, message: m}, nil
}

func (l *letters) Close(ctx context.Context) error {
	l.stop()
	l.renews.Wait()
	if err := l.d.run.unlock.Run(ctx, l.d.client, []string{l.lock}, l.token).Err(); err != nil {
		return fmt.Errorf("%w: close the dead letters; others wait up to %s: %w", bus.ErrUnavailable, lettersLease, err)
	}
	return nil
}

// letter is one dead letter of a reading.
type letter struct {
	d       *Driver
	id      string
	message *bus.Message
	settled atomic.Bool
}

func (l *letter) Message() *bus.Message { return l.message }
func (l *letter) Attempt() int          { return 1 }

// Ack removes the letter, and waits until it is gone.
func (l *letter) Ack() error {
	if l.settled.Swap(true) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), discardTimeout)
	defer cancel()
	return l.d.settling.do(ctx, func(p redis.Pipeliner) []redis.Cmder {
		return []redis.Cmder{p.XDel(ctx, l.d.store(), l.id)}
	})
}

// Requeue leaves the letter in its place.
func (l *letter) Requeue() error {
	l.settled.Store(true)
	return nil
}

// Retry is not for letters.
func (l *letter) Retry(context.Context, time.Duration) error {
	return fmt.Errorf("retry a dead letter: %w; redeliver it to its queue", errors.ErrUnsupported)
}
