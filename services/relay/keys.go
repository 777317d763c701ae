package relay

import (
	"sync"
	"sync/atomic"
)

// Keys are the partition keys of which events wait in the table, as far as this process knows: of its own events
// always, of those of other processes from the last reading on. Until the table has been read, every key waits.
type Keys struct {
	known atomic.Bool // the table has been read
	some  atomic.Bool // a key waits
	mu    sync.Mutex
	keys  map[string]*waitingKey
}

type waitingKey struct {
	adding  int           // calls that are adding events now
	version uint64        // counts calls that began to
	gone    chan struct{} // closed when nothing of the key waits any more
}

// None reports whether no key waits.
func (k *Keys) None() bool { return k.known.Load() && !k.some.Load() }

// Waits reports whether a key does.
func (k *Keys) Waits(key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.known.Load() || k.keys[key] != nil
}

// Adding marks a key before an event of it is added; Added ends that.
func (k *Keys) Adding(key string) {
	if key == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.at(key)
	w.adding++
	w.version++
}

// AddingUnlessGone is Adding, unless the caller has the patience to wait, or has no reason to: then nothing is marked,
// and the channel is closed when the key does not wait any more.
func (k *Keys) AddingUnlessGone(key string, patient bool) (gone <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.keys[key]
	if w == nil && k.known.Load() {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	if w != nil && patient && k.known.Load() {
		return w.gone
	}
	w = k.at(key)
	w.adding++
	w.version++
	return nil
}

// Added ends what Adding began.
func (k *Keys) Added(key string) {
	if key == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[key].adding--
}

// at returns the entry of a key, made when it is absent. k.mu is held.
func (k *Keys) at(key string) *waitingKey {
	w := k.keys[key]
	if w == nil {
		if k.keys == nil {
			k.keys = map[string]*waitingKey{}
		}
		w = &waitingKey{gone: make(chan struct{})}
		k.keys[key] = w
		k.some.Store(true)
	}
	return w
}

// versions returns the keys to which nobody is adding now, among those given, or of all; for settle.
func (k *Keys) versions(among []string) map[string]uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	seen := map[string]uint64{}
	if among == nil {
		for key, w := range k.keys {
			if w.adding == 0 {
				seen[key] = w.version
			}
		}
		return seen
	}
	for _, key := range among {
		if w := k.keys[key]; w != nil && w.adding == 0 {
			seen[key] = w.version
		}
	}
	return seen
}

// settle takes over which keys were found in the table after seen was taken. A key that was not found waits no more,
// unless somebody began to add to it meanwhile.
func (k *Keys) settle(seen map[string]uint64, found []string, all bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range found {
		k.at(key)
		delete(seen, key)
	}
	for key, version := range seen {
		if w := k.keys[key]; w != nil && w.adding == 0 && w.version == version {
			delete(k.keys, key)
			close(w.gone)
		}
	}
	k.some.Store(len(k.keys) > 0)
	if all {
		k.known.Store(true)
	}
}
