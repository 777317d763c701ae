package redisbus

import (
	"cmp"
	"slices"
	"time"
)

// gatherTime is how long what a closed consumer gives back waits for what should go before it, while handlers work on.
const gatherTime = 50 * time.Millisecond

// gather keeps a delivery that is to be given back until the others are settled, so that all go back in the order in
// which they came.
func (c *groupConsumer) gather(d *groupDelivery) {
	c.mu.Lock()
	c.back = append(c.back, d)
	first := len(c.back) == 1
	c.mu.Unlock()
	if first {
		time.AfterFunc(gatherTime, func() { c.giveBackAll(true) })
	}
	c.giveBackAll(false)
}

// giveBackAll gives back what was gathered, if nothing is in work any more or if it is not to wait for that.
func (c *groupConsumer) giveBackAll(now bool) {
	c.mu.Lock()
	for _, d := range c.work {
		if !now && !d.settled.Load() {
			c.mu.Unlock()
			return
		}
	}
	list := c.back
	c.back = nil
	slices.SortFunc(list, func(a, b *groupDelivery) int {
		p, q := parsePosition(a.at.id), parsePosition(b.at.id)
		return cmp.Or(-compareOwn(a, b), cmp.Compare(p.ms, q.ms), cmp.Compare(p.seq, q.seq))
	})
	c.mu.Unlock()
	for _, d := range list {
		if err := d.copyBack(); err != nil {
			c.d.log.Warn("a message could not be given back; it is taken over later", "queue", c.q.Name, "error", err)
		}
	}
}

// compareOwn is 1 where a alone was given back before.
func compareOwn(a, b *groupDelivery) int {
	switch own := a.c.own.key; {
	case a.at.stream == own && b.at.stream != own:
		return 1
	case a.at.stream != own && b.at.stream == own:
		return -1
	default:
		return 0
	}
}
