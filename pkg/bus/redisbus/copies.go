package redisbus

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// waitAgain is how long one WAIT waits: whoever publishes next is behind it.
const waitAgain = 50 * time.Millisecond

// copies waits for replicas to have what was written. Redis answers WAIT for the connection that wrote, so all is written
// on one; when it breaks, nobody knows any more what the next master has of it.
type copies struct {
	client   *redis.Client
	replicas int
	conn     *redis.Conn
}

// connection is where to write. It is the sender's alone.
func (c *copies) connection() *redis.Conn {
	if c.conn == nil {
		c.conn = c.client.Conn()
	}
	return c.conn
}

// await returns when enough replicas have what was just written, or nobody waits for that any more. An error says that it
// cannot be known, and that all is to be written again.
func (c *copies) await(ctx context.Context, sent []*op) error {
	if c == nil {
		return nil
	}
	for _, o := range sent {
		if err := firstError(o.cmds); err != nil && passing(err) {
			c.end()
			return err
		}
	}
	for {
		have, err := c.conn.Wait(ctx, c.replicas, waitAgain).Result()
		if err != nil {
			c.end()
			return err
		}
		if int(have) >= c.replicas {
			return nil
		}
		if !awaited(sent) {
			return errors.New("too few replicas had the message in time") // nobody reads it: all have returned
		}
	}
}

func awaited(sent []*op) bool {
	for _, o := range sent {
		if o.ctx.Err() == nil {
			return true
		}
	}
	return false
}

func (c *copies) end() {
	if c != nil && c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}
