package redisbus

import (
	"cmp"
	"slices"
	"time"
)

// gatherTime is how long what a closed consumer gives back waits for what should go before it, while handlers work on. It
// counts from the last one that was given back.
const gatherTime = 50 * time.Millisecond

// gather keeps a delivery that is to be given back until the others are settled, so that all go back in the order in
// which they came. It is settled and gathered in one step: between the two, the others would seem to be all there is.
func (c *groupConsumer) gather(d *groupDelivery, tried int) {
	c.mu.Lock()
	if c.q.AutoAck || !d.settled.Swap(true) {
		d.tried = tried
		c.back = append(c.back, d)
	}
	if c.gathering == nil {
		c.gathering = time.AfterFunc(gatherTime, func() { c.giveBackAll(true) })
	} else {
		c.gathering.Reset(gatherTime)
	}
	c.mu.Unlock()
	c.giveBackAll(false)
}

// giveBackAll gives back what was gathered, if nothing is in work any more or if it is not to wait for that. It reports
// whether it did.
func (c *groupConsumer) giveBackAll(now bool) bool {
	c.mu.Lock()
	for _, d := range c.work {
		if !now && !d.settled.Load() {
			c.mu.Unlock()
			return false
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
	return true
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
