package connect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
)

// overflowQueue hears, one node at a time, of sessions for which more waits than is kept.
const overflowQueue = "connect.overflow"

// eventSpace is what ids of events are derived in.
var eventSpace = uuid.MustParse("3a1c7be4-6d0f-4f0e-9a55-0f6c2f9f2d11") //nolint:gochecknoglobals // a constant

// overflowPause is how long it waits for a store or a bus that is away.
const overflowPause = time.Second

// hearOverflows begins to hear of them.
func (s *Service) hearOverflows(ctx context.Context) error {
	consumer, err := s.cfg.Broker.Subscribe(ctx, bus.Queue{Name: overflowQueue, Durable: true, Prefetch: heardAtOnce})
	if err != nil {
		return err
	}
	s.overflows = consumer
	s.background.Go(func() { //nolint:contextcheck // it outlives the call, until Stop
		for d := range consumer.Deliveries() {
			s.settleOverflow(d)
		}
	})
	return nil
}

// settleOverflow does what a message says, or has it come again.
func (s *Service) settleOverflow(d bus.Delivery) {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.HandshakeTimeout)
	defer cancel()
	h := d.Message().Headers
	sessionID, anew, is := parseQueueName(h[bus.HeaderOverflowQueue])
	if is && h[bus.HeaderOverflowReason] == bus.OverflowReason {
		if err := s.lose(ctx, sessionID, anew, d.Attempt() > 1); err != nil {
			s.cfg.Logger.WarnContext(ctx, "more waits for a session than is kept, and it cannot be given up yet", slog.String("session", sessionID), slog.Any("error", err))
			_ = d.Retry(ctx, overflowPause) // otherwise the next one tells of it again
			return
		}
	}
	_ = d.Ack()
}

// lose gives up what waits in one of the session's queues, closes its connection wherever it is, and waits for its client no longer. The
// broker tells once for each event that it drops, so that most find it done, and some a session that has begun anew meanwhile, which has
// another queue. again: whoever was at it before may have died in between, and others were not told; late, they are told when it was.
func (s *Service) lose(ctx context.Context, sessionID string, anew int64, again bool) error {
	now, err := s.records.lose(ctx, sessionID, anew, s.cfg.recordLife())
	switch {
	case err == nil, again && errors.Is(err, errLost), again && errors.Is(err, errBefore) && now.lostLast(anew):
	case errors.Is(err, errLost), errors.Is(err, errBefore):
		return nil
	case errors.Is(err, errEnded): // its queue is a leftover
		return s.cfg.Broker.DeleteQueue(ctx, queueName(sessionID, anew))
	default:
		return err
	}
	if err := s.cfg.Broker.DeleteQueue(ctx, queueName(sessionID, anew)); err != nil {
		return err
	}
	s.meter.shed(ctx, "overflow")
	o := func(what string) bus.PublishOptions { // the id is the same each time, so that who is told twice knows it
		return bus.PublishOptions{PartitionKey: sessionID, MessageID: eventID(what, sessionID, now.Loss.At.UnixNano())}
	}
	at := events.Base{Timestamp: now.Loss.At}
	_, told := s.cfg.Bus.PublishWith(ctx, events.TopicSessionOverflowed, &events.SessionOverflowedEvent{Base: at, SessionID: sessionID, AccountID: now.AccountID}, o("overflowed"))
	_, gone := s.cfg.Bus.PublishWith(ctx, events.TopicSessionDisconnected, &events.SessionDisconnectedEvent{
		Base: at, SessionID: sessionID, AccountID: now.AccountID, InstanceID: now.Loss.InstanceID, Reason: events.SessionDisconnectedReasonOverflow,
	}, o("disconnected"))
	return errors.Join(told, gone)
}

// lostLast reports whether this queue is the one that the session has lost last, and has begun anew from.
func (r record) lostLast(anew int64) bool { return r.Anew == anew+1 && !r.Lost && !r.Loss.At.IsZero() }

// eventID is the id of an event that may be told again, by which it is known.
func eventID(what, sessionID string, number int64) string {
	return uuid.NewSHA1(eventSpace, fmt.Appendf(nil, "%s %s %d", what, sessionID, number)).String()
}

// overflowedElsewhere closes the connection of a session that has missed something. The record decides: it may have a newer one.
func (s *Service) overflowedElsewhere(ctx context.Context, e *events.SessionOverflowedEvent) error {
	if v := s.held.get(e.SessionID); v != nil {
		return s.look(ctx, v)
	}
	return nil
}

func lost() ending {
	return ending{code: CloseOverflow, reason: "more events waited for you than are kept, and are gone: connect with an access token", silent: true, leftover: true}
}
