package memorystate

import (
	"container/heap"
	"context"
	"slices"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

var _ state.Scanner = (*engine)(nil)

// Scan implements state.Scanner, in the order of the keys. A cursor is the last key of the answer before it.
func (e *engine) Scan(ctx context.Context, cursor string, limit int) ([]string, string, error) {
	if err := e.check(ctx); err != nil {
		return nil, "", err
	}
	now := time.Now()
	var least greatestFirst // of the keys after the cursor
	e.mu.RLock()
	for key, it := range e.items {
		if key <= cursor || it.expired(now) {
			continue
		}
		if len(least) < limit {
			heap.Push(&least, key)
		} else if key < least[0] {
			least[0] = key
			heap.Fix(&least, 0)
		}
	}
	e.mu.RUnlock()
	slices.Sort(least)
	if len(least) < limit {
		return least, "", nil
	}
	return least, least[len(least)-1], nil
}

// greatestFirst is a heap of keys.
type greatestFirst []string

// Len, Less, Swap, Push and Pop implement heap.Interface.

func (g greatestFirst) Len() int           { return len(g) }
func (g greatestFirst) Less(i, j int) bool { return g[i] > g[j] }
func (g greatestFirst) Swap(i, j int)      { g[i], g[j] = g[j], g[i] }
func (g *greatestFirst) Push(x any)        { *g = append(*g, x.(string)) } //nolint:forcetypeassert // only keys are pushed

func (g *greatestFirst) Pop() any {
	last := len(*g) - 1
	key := (*g)[last]
	*g = (*g)[:last]
	return key
}
