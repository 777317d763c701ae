package redisbus

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// What is to come again is a copy, put somewhere else before the original is acknowledged. In between a process may die,
// or not hear that the copy is there. So the script that puts the copy notes the original's place with it: it puts no
// second one, and who takes the original over acknowledges it. When the original is known to be acknowledged the note goes.

// moveAge is how long a note stays whose process died: until somebody has taken the place over.
const moveAge = 24 * time.Hour

func (p place) String() string { return p.stream + " " + p.id }

// move is the arguments of a script that moves the delivery.
func (d *groupDelivery) move(fields map[string]any, more ...any) []any {
	d.moved.Store(true)
	args := append([]any{d.at.String(), moveAge.Milliseconds()}, more...)
	for name, value := range fields {
		args = append(args, name, value)
	}
	return args
}

// wasMoved reports whether a copy of what lies in a place is elsewhere already.
func (c *groupConsumer) wasMoved(p place) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	err := c.d.client.ZScore(ctx, movedKey(c.q.Name), p.String()).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	return err == nil, err
}

// forgetMoves removes the notes of what was acknowledged since, and reports whether there are none left to remove. What
// cannot be removed now is tried again by the next call; what is left with the process goes by its age.
func (c *groupConsumer) forgetMoves(ctx context.Context) bool {
	c.mu.Lock()
	list := c.moves
	c.moves = nil
	c.mu.Unlock()
	if len(list) == 0 {
		return true
	}
	err := c.d.client.ZRem(ctx, movedKey(c.q.Name), members(list)...).Err()
	if err == nil {
		return true
	}
	c.d.log.Debug("notes of what was moved could not be removed", "queue", c.q.Name, "error", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moves = append(c.moves, list...)
	return false
}

func members(list []place) []any {
	members := make([]any, len(list))
	for i, p := range list {
		members[i] = p.String()
	}
	return members
}
