package connect

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/bannou-mesh/bannou/events"
)

// renewAtOnce is how many records are renewed at a time.
const renewAtOnce = 16

// sweep looks after all connections: one goroutine, and no timer of each. It waits for nothing else.
func (s *Service) sweep(ctx context.Context) {
	each(ctx, min(s.cfg.PingInterval, s.cfg.AckTimeout)/4, func() { s.lookAfter(ctx, time.Now()) })
}

// renew keeps the records of all connections. It waits for the store, for which sweep must not.
func (s *Service) renew(ctx context.Context) {
	each(ctx, s.cfg.renewEvery()/4, func() { s.renewAll(ctx, time.Now()) })
}

// giveUp tells of sessions whose clients do not come back. It waits for the bus, for which renew must not: records would expire.
func (s *Service) giveUp(ctx context.Context) {
	each(ctx, s.cfg.renewEvery()/4, func() { s.giveUpAll(ctx) })
}

// each does something again and again until ctx ends.
func each(ctx context.Context, every time.Duration, do func()) {
	tick := time.NewTicker(max(every, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}

func (s *Service) lookAfter(ctx context.Context, now time.Time) {
	for _, v := range s.held.all() {
		if !v.works() {
			continue
		}
		if ends := v.record.Ends; !ends.IsZero() && !s.cfg.Now().Before(ends) {
			v.close(away(CloseExpired, "the session's time is over, unless it was refreshed: show an access token", events.SessionDisconnectedReasonTimeout))
			continue
		}
		if oldest := v.pending.oldest(); !oldest.IsZero() && now.Sub(oldest) > s.cfg.AckTimeout {
			s.meter.shed(ctx, "unacknowledged")
			v.close(away(CloseUnanswered, "you have not acknowledged an event for too long: reconnect", events.SessionDisconnectedReasonTimeout))
			continue
		}
		if now.Sub(v.pinged) >= s.cfg.PingInterval {
			v.pinged = now
			_ = v.put(outFrame{kind: websocket.PingMessage})
		}
	}
}

func (s *Service) renewAll(ctx context.Context, now time.Time) {
	var renewing sync.WaitGroup
	defer renewing.Wait()
	slots := make(chan struct{}, renewAtOnce)
	for _, v := range s.held.all() {
		if !v.works() || now.Sub(v.renewed) < s.cfg.renewEvery() {
			continue
		}
		v.renewed = now
		slots <- struct{}{}
		renewing.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, s.cfg.HandshakeTimeout)
			defer cancel()
			if err := s.look(ctx, v); err != nil {
				v.renewed = time.Time{} // soon again
				s.cfg.Logger.DebugContext(ctx, "the record of a session cannot be renewed", slog.String("session", v.id), slog.Any("error", err))
			}
		})
	}
}
