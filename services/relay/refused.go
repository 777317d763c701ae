package relay

import (
	"fmt"
	"time"

	"github.com/google/uuid"
)

// renewOwner gives this process's further claims another name. What it has claimed under the one before stays claimed until the
// lease ends, and with it all of the same keys.
func (r *Relay) renewOwner() error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("relay: cannot make an id: %w", err)
	}
	r.owner = id.String()
	return nil
}

// refuses reports whether the broker has refused a topic lately.
func (r *Relay) refuses(topic string) bool {
	until, found := r.refused[topic]
	if found && time.Now().After(until) {
		delete(r.refused, topic)
		return false
	}
	return found
}
