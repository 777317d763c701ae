package bus

import "sync"

// lanes runs functions: those with the same key one after another in the order they were given, all others side by
// side. How many run at a time is the caller's to bound.
type lanes struct {
	mu      sync.Mutex
	waiting map[string][]func() // a key is present while its lane is busy
	running sync.WaitGroup
}

func (l *lanes) do(key string, f func()) {
	if key == "" {
		l.running.Go(f)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if queued, busy := l.waiting[key]; busy {
		l.waiting[key] = append(queued, f)
		return
	}
	if l.waiting == nil {
		l.waiting = make(map[string][]func())
	}
	l.waiting[key] = nil
	l.running.Go(func() { l.drain(key, f) })
}

// drain runs f and all that comes after it in its lane, until the lane is empty.
func (l *lanes) drain(key string, f func()) {
	for f != nil {
		f()
		f = l.next(key)
	}
}

func (l *lanes) next(key string) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	queued := l.waiting[key]
	if len(queued) == 0 {
		delete(l.waiting, key)
		return nil
	}
	l.waiting[key] = queued[1:]
	return queued[0]
}

// wait returns when all that was given has run.
func (l *lanes) wait() { l.running.Wait() }
