package memorystate

import (
	"container/heap"
	"time"
)

// deadlines is a heap of the items that expire, the next to expire first. An item knows its place in it, so that a
// change of its expiry moves it and leaves nothing behind.
type deadlines []*item

// schedule brings an item to the place its expiry asks for, which may be none.
func (d *deadlines) schedule(it *item) {
	switch {
	case it.expires.IsZero():
		d.cancel(it)
	case it.index < 0:
		heap.Push(d, it)
	default:
		heap.Fix(d, it.index)
	}
}

// cancel takes an item out, if it is in.
func (d *deadlines) cancel(it *item) {
	if it.index >= 0 {
		heap.Remove(d, it.index)
	}
}

// first returns the item that expires first, or nil.
func (d deadlines) first() *item {
	if len(d) == 0 {
		return nil
	}
	return d[0]
}

// countExpired counts without taking them out. Below an item that has not expired there is none that has.
func (d deadlines) countExpired(now time.Time) int { return d.countFrom(0, now) }

func (d deadlines) countFrom(i int, now time.Time) int {
	if i >= len(d) || !d[i].expired(now) {
		return 0
	}
	return 1 + d.countFrom(2*i+1, now) + d.countFrom(2*i+2, now)
}

// Len, Less, Swap, Push and Pop implement heap.Interface.

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].expires.Before(d[j].expires) }

func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}

func (d *deadlines) Push(x any) {
	it := x.(*item)
	it.index = len(*d)
	*d = append(*d, it)
}

func (d *deadlines) Pop() any {
	old := *d
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	it.index = -1
	return it
}
