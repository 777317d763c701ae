package faults

import (
	"context"
	"sync"
	"time"
)

// tick is how often a process looks at the time, to know when it did not run.
const tick = 10 * time.Millisecond

// stalls are the times in which this process did not run: where a machine is busy with others' work, or stands still. What was not done then
// is nobody's fault. They are safe for concurrent use; the zero value knows of none.
type stalls struct {
	mu   sync.Mutex
	last time.Time // when it ran; zero: nobody watches
	all  []stall   // in the order of time
}

type stall struct{ from, to time.Time }

// watch looks until the returned function is called: the end of ctx does not end it, because the last calls come back after that.
func (s *stalls) watch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var watching sync.WaitGroup
	s.ran(time.Now())
	watching.Go(func() {
		for Pause(ctx, tick) == nil {
			s.ran(time.Now())
		}
	})
	return func() {
		cancel()
		watching.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.last = time.Time{}
	}
}

// ran enters that the process runs now. It should have a tick after the last time.
func (s *stalls) ran(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if due := s.last.Add(tick); !s.last.IsZero() && now.Sub(due) > tick {
		s.all = append(s.all, stall{due, now})
	}
	s.last = now
}

// overdue is how much time the process had from a deadline until now.
func (s *stalls) overdue(deadline, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	late := now.Sub(deadline)
	without := func(from time.Time) { // and until now, or until the one after it
		if from.Before(deadline) {
			from = deadline
		}
		late -= max(0, now.Sub(from))
	}
	if late > 0 && !s.last.IsZero() {
		without(s.last.Add(tick)) // it may have run again before who watches has
	}
	for i := len(s.all) - 1; i >= 0 && s.all[i].to.After(deadline) && late > 0; i-- {
		if to := s.all[i].to; to.Before(now) { // else it goes on after the call
			now = to
		}
		without(s.all[i].from)
	}
	return late
}
