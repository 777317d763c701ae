package bus

import "sync"

// crew is the deliveries that a source has in hand: at work, or waiting for one of the same partition key before them. It
// hands out work so that those with one key come one after another in the order they were given, and all others side by
// side. How many are in hand is the caller's to bound.
type crew struct {
	mu      sync.Mutex
	inHand  map[*work]struct{}
	waiting map[string][]*work // a key is present while one of its works is under way
	idle    chan struct{}      // closed when nothing is in hand any more; nil while nobody waits for that

	aside     []*work // that were to be done, and no handler has begun with
	dismissed bool
}

// enter takes a work into hand. It reports whether to do it now: otherwise leave returns it, after those of its key.
func (c *crew) enter(w *work) (now bool) {
	key := w.key()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inHand == nil {
		c.inHand = make(map[*work]struct{})
	}
	c.inHand[w] = struct{}{}
	if key == "" {
		return true
	}
	if queued, busy := c.waiting[key]; busy {
		c.waiting[key] = append(queued, w)
		return false
	}
	if c.waiting == nil {
		c.waiting = make(map[string][]*work)
	}
	c.waiting[key] = nil
	return true
}

// leave takes a settled work out of hand, and returns the next of its key, which is to be done now.
func (c *crew) leave(w *work) (next *work) {
	key := w.key()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.inHand, w)
	if c.idle != nil && len(c.inHand) == 0 {
		close(c.idle)
		c.idle = nil
	}
	if key == "" {
		return nil
	}
	queued := c.waiting[key]
	if len(queued) == 0 {
		delete(c.waiting, key)
		return nil
	}
	next, queued[0] = queued[0], nil
	c.waiting[key] = queued[1:]
	return next
}

// putAside leaves a work that was to be done to who dismisses the crew, so that it is given back with those behind it and in
// order. It reports false when that is over, or somebody else settles the work.
func (c *crew) putAside(w *work) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dismissed || !w.claim() {
		return false
	}
	c.aside = append(c.aside, w)
	return true
}

// dismiss takes out of hand what no handler has begun with, and returns it: those of one key in their order.
func (c *crew) dismiss() []*work {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dismissed = true
	all := c.aside
	c.aside = nil
	for key, queued := range c.waiting {
		for _, w := range queued {
			delete(c.inHand, w)
			if w.claim() {
				all = append(all, w)
			}
		}
		c.waiting[key] = nil
	}
	return all
}

// abandon takes everything out of hand that nobody is settling yet, and returns it: its handlers are not waited for.
func (c *crew) abandon() []*work {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*work
	for w := range c.inHand {
		if w.claim() {
			all = append(all, w)
		}
	}
	clear(c.waiting)
	return all
}

// emptied returns a channel that is closed when nothing is in hand.
func (c *crew) emptied() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle == nil {
		c.idle = make(chan struct{})
	}
	idle := c.idle
	if len(c.inHand) == 0 {
		close(c.idle)
		c.idle = nil
	}
	return idle
}
