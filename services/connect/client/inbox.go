package client

import (
	"sync"

	"github.com/gorilla/websocket"

	"github.com/bannou-mesh/bannou/services/connect"
)

// remembered is how many ids of events that were taken are known, so that none comes twice: many windows' worth.
const remembered = 4096

// An inbox is the events that were received and not yet taken.
type inbox struct {
	signal chan struct{} // has an element when there may be something

	mu     sync.Mutex
	link   *link
	window int
	list   []received
	taken  map[string]struct{}
	order  []string // of taken
}

type received struct {
	link     *link
	sequence uint32
	event    Event
}

// restart begins anew on a connection: what was not taken comes again there.
func (b *inbox) restart(l *link, window int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.link, b.window, b.list = l, window, nil
}

func (b *inbox) put(l *link, sequence uint32, e Event) {
	b.mu.Lock()
	if b.link == l {
		b.list = append(b.list, received{l, sequence, e})
	}
	b.mu.Unlock()
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

// next is the first event that was not taken before, with how many wait behind it; false: there is none.
func (b *inbox) next() (r received, again, last, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.list) == 0 {
		return r, false, false, false
	}
	r = b.list[0]
	b.list = b.list[1:]
	_, again = b.taken[r.event.ID]
	return r, again, len(b.list) == 0 || int(r.sequence)%max(b.window/4, 1) == 0, true
}

func (b *inbox) took(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken == nil {
		b.taken = map[string]struct{}{}
	}
	b.taken[id] = struct{}{}
	if b.order = append(b.order, id); len(b.order) > remembered {
		delete(b.taken, b.order[0])
		b.order = b.order[1:]
	}
}

// handOut gives events to who takes them, and acknowledges them then.
func (c *Client) handOut() {
	defer close(c.events)
	for {
		r, again, last, ok := c.inbox.next()
		if !ok {
			select {
			case <-c.inbox.signal:
				continue
			case <-c.done:
				return
			}
		}
		if !again {
			select {
			case c.events <- r.event:
				c.inbox.took(r.event.ID)
			case <-c.done:
				return
			}
		}
		if last {
			ack := connect.Request{Flags: connect.FlagAck, Sequence: r.sequence}
			_ = r.link.write(websocket.BinaryMessage, ack.Append(nil)) // else it comes again
		}
	}
}
