package messaging

import (
	"context"
	"errors"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/host"
)

var _ host.Measured = (*Service)(nil)

// startOutbox reads which keys wait, if the table answers soon, and begins to send what an earlier process has left.
func (s *Service) startOutbox(ctx context.Context) {
	first, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.outbox.relay.Refresh(first); err != nil {
		s.cfg.Logger.Warn("the outbox cannot be read yet: events with a partition key are refused until it can", "error", err)
	}
	s.work.Go(func() { s.outbox.relay.Run(s.life) })
}

// Spools reports nil when events can be kept while the broker is away, as far as that is known without asking, and
// otherwise why not.
func (s *Service) Spools() error {
	if s.outbox == nil {
		return errors.New("there is no outbox")
	}
	return s.outbox.relay.Trouble()
}

// Figures are those of the outbox: how many events wait, how long the oldest has waited in seconds, and how many were set
// aside because no broker takes them.
func (s *Service) Figures() map[string]float64 {
	if s.outbox == nil {
		return nil
	}
	stats := s.outbox.relay.Figures()
	return map[string]float64{
		"outboxDepth": float64(stats.Depth), "outboxAgeSeconds": s.outbox.relay.Age().Seconds(), "outboxParked": float64(stats.Parked),
	}
}

// ready is the service's readiness when resumeErr is why durable subscriptions are not all back.
func (o *outbox) ready(resumeErr error) error {
	if err := o.relay.Trouble(); err != nil {
		return errors.Join(fmt.Errorf("events cannot be kept while the broker is away: %w", err), resumeErr)
	}
	stats := o.relay.Figures()
	switch {
	case resumeErr != nil && !errors.Is(resumeErr, bus.ErrUnavailable):
		return resumeErr
	case resumeErr != nil:
		return host.Degraded(resumeErr)
	case o.relay.Away():
		return host.Degraded(fmt.Errorf("the broker is away: %d events wait in the outbox", stats.Depth))
	case stats.Parked > 0:
		return host.Degraded(fmt.Errorf("%d events cannot be sent and were set aside: look at them with bannou outbox list", stats.Parked))
	default:
		return nil
	}
}
