package connect

import (
	"context"
	"time"
)

// GiveUpAll looks at all sessions that are waited for, as if their time were over.
func (s *Service) GiveUpAll(ctx context.Context) {
	s.waiting.mu.Lock()
	for id, w := range s.waiting.list {
		w.until = time.Time{}
		s.waiting.list[id] = w
	}
	s.waiting.mu.Unlock()
	s.giveUpAll(ctx)
}
