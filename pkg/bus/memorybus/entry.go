package memorybus

import (
	"bytes"
	"container/heap"
	"maps"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// entry is a message in one queue. It waits to be delivered, or is delivered and not settled, or is delayed.
type entry struct {
	message  *bus.Message // this queue's own copy
	seq      uint64       // its place in the queue, which it keeps when it is given back
	priority uint8
	attempt  int       // of its next delivery, or of the one under way
	expires  time.Time // zero: never

	due      time.Time // when something happens to it, while it is in waits
	delayed  bool      // what: it becomes ready; otherwise it expires
	readyPos int       // its place in the ready heap, -1: not in it
	duePos   int       // its place in the waits heap, -1: not in it
}

func clone(m *bus.Message) *bus.Message {
	c := *m
	c.Headers = maps.Clone(m.Headers)
	c.Body = bytes.Clone(m.Body)
	return &c
}

// ready is a heap of the entries that can be delivered, first the higher priority, then the older.
type ready []*entry

func (h ready) Len() int { return len(h) }
func (h ready) Less(i, j int) bool {
	if h[i].priority != h[j].priority {
		return h[i].priority > h[j].priority
	}
	return h[i].seq < h[j].seq
}
func (h ready) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].readyPos, h[j].readyPos = i, j
}
func (h *ready) Push(x any) {
	e := x.(*entry)
	e.readyPos = len(*h)
	*h = append(*h, e)
}
func (h *ready) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.readyPos = -1
	return e
}
func (h *ready) add(e *entry) { heap.Push(h, e) }
func (h *ready) remove(e *entry) {
	if e.readyPos >= 0 {
		heap.Remove(h, e.readyPos)
	}
}

// waits is a heap of the entries that time does something to, the earliest first.
type waits []*entry

func (h waits) Len() int           { return len(h) }
func (h waits) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h waits) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].duePos, h[j].duePos = i, j
}
func (h *waits) Push(x any) {
	e := x.(*entry)
	e.duePos = len(*h)
	*h = append(*h, e)
}
func (h *waits) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.duePos = -1
	return e
}
func (h *waits) add(e *entry) { heap.Push(h, e) }
func (h *waits) remove(e *entry) {
	if e.duePos >= 0 {
		heap.Remove(h, e.duePos)
	}
}
