package connect

import (
	"maps"
	"slices"
	"sync"
)

// held are the connections of this node, one of a session at most.
type held struct {
	mu       sync.RWMutex
	most     int
	closed   bool
	sessions map[string]*session
}

// add adds a connection, and returns the one of the session that it takes the place of. It refuses one that is too many, and one that is
// older than the one that is there, which it returns then.
func (h *held) add(v *session) (before *session, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before = h.sessions[v.id]
	if h.closed || before == nil && len(h.sessions) >= h.most {
		return nil, false
	}
	if before != nil && before.record.Epoch >= v.record.Epoch {
		return before, false
	}
	h.sessions[v.id] = v
	return before, true
}

// remove takes a connection off, unless another has its place.
func (h *held) remove(v *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions[v.id] == v {
		delete(h.sessions, v.id)
	}
}

func (h *held) get(sessionID string) *session {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.sessions[sessionID]
}

func (h *held) all() []*session {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.Collect(maps.Values(h.sessions))
}

func (h *held) count() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.sessions)
}

// close refuses all that come from now on.
func (h *held) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
}

// full reports whether nobody is taken.
func (h *held) full() (full, closed bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.sessions) >= h.most, h.closed
}
