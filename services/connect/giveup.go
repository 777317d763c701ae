package connect

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// waiting are sessions whose clients may come back, of which this node is to tell when they do not.
type waiting struct {
	mu   sync.Mutex
	list map[string]waiter
}

type waiter struct {
	accountID string
	epoch     int64
	until     time.Time
	gone      time.Time // when it was found that the client does not come back
}

// await waits for the client of a connection that is over.
func (s *Service) await(v *session) {
	s.waiting.add(v.id, waiter{accountID: v.record.AccountID, epoch: v.record.Epoch, until: time.Now().Add(s.cfg.ReconnectWithin + time.Second)})
}

// add waits for a session, unless a newer connection of it is waited for.
func (w *waiting) add(sessionID string, v waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.list == nil {
		w.list = map[string]waiter{}
	}
	if w.list[sessionID].epoch <= v.epoch {
		w.list[sessionID] = v
	}
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

// giveUpAll tells of those that are due. Once that fails the rest is left for the next time: the store or the bus is away.
func (s *Service) giveUpAll(ctx context.Context) {
	fails := false
	for id, w := range s.waiting.due(time.Now()) {
		if !fails {
			waits, err := s.giveUpOne(ctx, id, &w)
			if err == nil && !waits {
				continue
			}
			fails = err != nil
		}
		w.until = time.Now().Add(time.Second)
		s.waiting.add(id, w)
	}
}

// giveUpOne tells that the client of a session does not come back, once the session's record is gone. Waits: it is still there, and of the
// connection that was. It may have been prolonged when that ended, or it could not be noted that it did.
func (s *Service) giveUpOne(ctx context.Context, sessionID string, w *waiter) (waits bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.HandshakeTimeout)
	defer cancel()
	store, err := s.records.open(ctx)
	if err != nil {
		return false, err
	}
	now, err := store.Get(ctx, sessionID)
	switch {
	case err == nil:
		return now.Epoch == w.epoch && !now.Ended && !now.Lost, nil
	case !errors.Is(err, state.ErrNotFound):
		return false, err
	}
	if w.gone.IsZero() {
		w.gone = time.Now()
	}
	_, err = s.cfg.Bus.PublishWith(ctx, events.TopicSessionDisconnected, &events.SessionDisconnectedEvent{
		Base: events.Base{Timestamp: w.gone}, SessionID: sessionID, AccountID: w.accountID, InstanceID: s.cfg.InstanceID, Reason: events.SessionDisconnectedReasonTimeout,
	}, bus.PublishOptions{PartitionKey: sessionID, MessageID: eventID("given up", sessionID, w.epoch)})
	return false, err
}

// disconnected notes that a connection is over, and tells of it, unless somebody else does.
func (s *Service) disconnected(ctx context.Context, v *session, e ending) {
	if e.stays {
		switch now, err := s.records.keep(ctx, v.id, v.record, s.cfg.ReconnectWithin); {
		case errors.Is(err, errReplaced):
			e = v.replacedBy(now)
		case errors.Is(err, errEnded):
			e = over("logged out")
		case errors.Is(err, errLost):
			e = lost()
		default: // also where it could not be noted: it is known when the client does not come back
			if err != nil {
				s.cfg.Logger.WarnContext(ctx, "it could not be noted that a connection has ended", slog.String("session", v.id), slog.Any("error", err))
			}
			s.await(v)
		}
	}
	if e.leftover || !e.stays && !e.silent {
		if err := s.cfg.Broker.DeleteQueue(ctx, queueName(v.id, v.record.Anew)); err != nil {
			s.cfg.Logger.DebugContext(ctx, "the queue of a session that has ended could not be removed, and expires", slog.String("session", v.id), slog.Any("error", err))
		}
	}
	if !e.silent {
		s.tellDisconnected(ctx, v, e.told, e.stays)
	}
}

func (s *Service) tellDisconnected(ctx context.Context, v *session, reason events.SessionDisconnectedReason, stays bool) {
	_, err := s.cfg.Bus.PublishWith(ctx, events.TopicSessionDisconnected, &events.SessionDisconnectedEvent{
		SessionID: v.id, AccountID: v.record.AccountID, InstanceID: s.cfg.InstanceID, Reason: reason, Reconnectable: stays,
	}, bus.PublishOptions{PartitionKey: v.id})
	if err != nil {
		s.cfg.Logger.WarnContext(ctx, "a connection has ended, and others could not be told", slog.String("session", v.id), slog.Any("error", err))
	}
}
