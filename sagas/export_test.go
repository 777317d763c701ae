package sagas

import (
	"context"
	"strconv"
	"time"
)

// SetBehind sets how many positions an instance lies back before it is written anew.
func (e *Engine) SetBehind(positions int64) { e.behind = positions }

// SetUpgrade sets how long an instance of a newer version waits.
func (e *Engine) SetUpgrade(d time.Duration) { e.upgrade = d }

// Deliver gives a message to an instance.
func (e *Engine) Deliver(ctx context.Context, saga, key string, m Message) (Turn, error) {
	return e.deliver(ctx, e.families[saga], key, m)
}

// DuesAfter is how many times to look a desk has in mind after so many instances have started and ended before their time.
func DuesAfter(instances int) int {
	d := &desk{open: map[string]*Instance{}, busy: map[string]*job{}}
	late := time.Now().Add(time.Hour)
	for n := range instances {
		key := strconv.Itoa(n)
		d.enter(&Instance{Key: key, Status: Running, Due: &late})
		d.enter(&Instance{Key: key, Status: Completed})
	}
	return len(d.dues)
}
