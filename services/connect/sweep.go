package connect

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// renewAtOnce is how many records are renewed at a time.
const renewAtOnce = 16

// sweep looks after all connections: one goroutine, and no timer of each. It waits for nothing else.
func (s *Service) sweep(ctx context.Context) {
	each(ctx, min(s.cfg.PingInterval, s.cfg.AckTimeout)/4, func() { s.lookAfter(ctx, time.Now()) })
}

// renew keeps the records of all connections, and gives up those that are gone. It waits for the store, for which sweep must not.
func (s *Service) renew(ctx context.Context) {
	each(ctx, s.cfg.renewEvery()/4, func() {
		s.renewAll(ctx, time.Now())
		s.giveUp(ctx)
	})
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

// waiting are sessions whose clients may come back, of which this node is to tell when they do not.
type waiting struct {
	mu   sync.Mutex
	list map[string]waiter
}

type waiter struct {
	accountID string
	epoch     int64
	until     time.Time
}

func (w *waiting) add(sessionID string, v waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.list == nil {
		w.list = map[string]waiter{}
	}
	w.list[sessionID] = v
}

// due takes those whose time is over.
func (w *waiting) due(now time.Time) map[string]waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	due := map[string]waiter{}
	for id, v := range w.list {
		if now.After(v.until) {
			due[id] = v
		}
	}
	maps.DeleteFunc(w.list, func(id string, _ waiter) bool { _, is := due[id]; return is })
	return due
}

// giveUp tells of sessions whose clients have not come back.
func (s *Service) giveUp(ctx context.Context) {
	for id, w := range s.waiting.due(time.Now()) {
		store, err := s.records.open(ctx)
		if err == nil {
			_, err = store.Get(ctx, id)
		}
		switch {
		case errors.Is(err, state.ErrNotFound):
			s.tellDisconnected(ctx, id, w.accountID, events.SessionDisconnectedReasonTimeout, false)
		case err != nil && ctx.Err() == nil:
			w.until = time.Now().Add(time.Second)
			s.waiting.add(id, w)
		}
	}
}

// disconnected notes that a connection is over, and tells of it, unless a newer one has taken its place.
func (s *Service) disconnected(ctx context.Context, v *session, e ending) {
	switch {
	case e.silent:
		return
	case !e.stays:
		if err := s.cfg.Broker.DeleteQueue(ctx, queueName(v.id, v.record.Anew)); err != nil {
			s.cfg.Logger.DebugContext(ctx, "the queue of a session that has ended could not be removed, and expires", slog.String("session", v.id), slog.Any("error", err))
		}
	default:
		switch err := s.records.keep(ctx, v.id, v.record, s.cfg.ReconnectWithin); {
		case errors.Is(err, errReplaced):
			return
		case errors.Is(err, errEnded):
			e = over("logged out")
		case errors.Is(err, errLost): // who has lost it tells
			return
		case err != nil:
			s.cfg.Logger.WarnContext(ctx, "it could not be noted that a connection has ended", slog.String("session", v.id), slog.Any("error", err))
		default:
			s.waiting.add(v.id, waiter{v.record.AccountID, v.record.Epoch, time.Now().Add(s.cfg.ReconnectWithin + time.Second)})
		}
	}
	s.tellDisconnected(ctx, v.id, v.record.AccountID, e.told, e.stays)
}

func (s *Service) tellDisconnected(ctx context.Context, sessionID, accountID string, reason events.SessionDisconnectedReason, stays bool) {
	_, err := s.cfg.Bus.PublishWith(ctx, events.TopicSessionDisconnected, &events.SessionDisconnectedEvent{
		SessionID: sessionID, AccountID: accountID, InstanceID: s.cfg.InstanceID, Reason: reason, Reconnectable: stays,
	}, bus.PublishOptions{PartitionKey: sessionID})
	if err != nil {
		s.cfg.Logger.WarnContext(ctx, "a connection has ended, and others could not be told", slog.String("session", sessionID), slog.Any("error", err))
	}
}
