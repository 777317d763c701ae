package redisbus

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// blockTime is how long one command waits for messages.
const blockTime = time.Second

// blocked is a connection whose commands wait for messages, and can be told to return.
type blocked struct {
	d *Driver

	mu   sync.Mutex
	conn *redis.Conn
	id   int64 // of the connection, as Redis knows it
}

// read runs a command on the connection. It belongs to one goroutine.
func (b *blocked) read(command func(ctx context.Context, conn *redis.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), blockTime+answerTimeout)
	defer cancel()
	b.mu.Lock()
	conn := b.conn
	b.mu.Unlock()
	if conn == nil {
		conn = b.d.reading.Conn()
		id, err := conn.ClientID(ctx).Result()
		if err != nil {
			_ = conn.Close()
			return err
		}
		b.mu.Lock()
		b.conn, b.id = conn, id
		b.mu.Unlock()
	}
	err := command(ctx, conn)
	if err != nil && passing(err) && err != redis.Nil { //nolint:errorlint // Nil is never wrapped
		b.close()
	}
	return err
}

// wake has a command that waits return. One that does not wait yet is missed; it returns after blockTime.
func (b *blocked) wake(ctx context.Context) {
	b.mu.Lock()
	id, there := b.id, b.conn != nil
	b.mu.Unlock()
	if there {
		_ = b.d.client.ClientUnblock(ctx, id).Err()
	}
}

func (b *blocked) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil {
		_ = b.conn.Close()
		b.conn = nil
	}
}

// wakeUntil wakes again and again until done, or ctx ends.
func (b *blocked) wakeUntil(ctx context.Context, done <-chan struct{}) error {
	for {
		b.wake(ctx)
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			select {
			case <-done:
				return nil
			default:
				return context.Cause(ctx)
			}
		case <-time.After(10 * time.Millisecond):
		}
	}
}
