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
}

// Letters opens the store. A key in Redis keeps other readers out, those of other nodes too, until it is closed.
func (d *Driver) Letters(ctx context.Context) (bus.Letters, error) { //nolint:contextcheck // the lease lives until Close
	if d.closing.Err() != nil {
		return nil, bus.ErrClosed
	}
	l := &letters{d: d, lock: "bannou:{" + d.store() + "}:reader", token: uuid.NewString(), at: "-"}
	for {
		won, err := d.client.SetNX(ctx, l.lock, l.token, lettersLease).Result()
		if err == nil && won {
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
			_ = l.d.run.relock.Run(ctx, l.d.client, []string{l.lock}, l.token, lettersLease.Milliseconds()).Err()
		case <-ctx.Done():
			return
		}
	}
}

func (l *letters) Count() int64 { return l.count }

func (l *letters) Next(ctx context.Context) (bus.Delivery, error) {
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
