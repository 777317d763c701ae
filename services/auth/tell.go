package auth

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
)

// tell publishes the ends of sessions that are noted in an account's record, and then takes the notes away. Who dies in between
// leaves them to the next one who tells of the account, and to tellLeft, so that an end is told at least once.
func (s *Service) tell(ctx context.Context, accountID string) error {
	r, err := s.sessions.read(ctx, accountID)
	if err != nil || len(r.Untold) == 0 {
		return err
	}
	for _, e := range r.Untold {
		if _, err := s.cfg.Bus.PublishWith(ctx, events.TopicSessionInvalidated, &events.SessionInvalidatedEvent{
			AccountID: accountID, SessionIDs: e.SessionIDs, Reason: e.Reason, DisconnectClients: true,
		}, bus.PublishOptions{PartitionKey: accountID}); err != nil {
			return err
		}
	}
	told := r.Untold
	return s.sessions.change(ctx, accountID, func(r *record) (bool, error) {
		before := len(r.Untold)
		r.Untold = slices.DeleteFunc(r.Untold, func(e ending) bool {
			return slices.ContainsFunc(told, func(t ending) bool { return e.Reason == t.Reason && slices.Equal(e.SessionIDs, t.SessionIDs) })
		})
		return len(r.Untold) != before, nil
	})
}

// tellOrLater tells now, and if that fails later: the sessions have ended in any case.
func (s *Service) tellOrLater(ctx context.Context, accountID string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
	defer cancel()
	if err := s.tell(ctx, accountID); err != nil {
		s.cfg.Logger.WarnContext(ctx, "sessions have ended, and others could not be told; it is tried again",
			slog.String("account", accountID), slog.Any("error", err))
		s.teller.remember(accountID)
	}
}

// A teller remembers accounts of which something is to be told.
type teller struct {
	mu       sync.Mutex
	accounts map[string]struct{}
}

func newTeller() *teller { return &teller{accounts: map[string]struct{}{}} }

func (t *teller) remember(accountID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.accounts[accountID] = struct{}{}
}

// take returns them, and forgets them.
func (t *teller) take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := slices.Collect(maps.Keys(t.accounts))
	clear(t.accounts)
	return taken
}

func (s *Service) tellAgain(ctx context.Context) {
	tick := time.NewTicker(s.cfg.TellEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, accountID := range s.teller.take() {
				if ctx.Err() != nil {
					return
				}
				s.tellOrLater(ctx, accountID)
			}
		case <-ctx.Done():
			return
		}
	}
}

// tellUpdated publishes what a session may do from now on.
func (s *Service) tellUpdated(ctx context.Context, accountID, sessionID string, roles []string, version int64, reason events.SessionUpdatedReason) error {
	if roles == nil {
		roles = []string{}
	}
	_, err := s.cfg.Bus.PublishWith(ctx, events.TopicSessionUpdated, &events.SessionUpdatedEvent{
		SessionID: sessionID, AccountID: accountID, Roles: roles, Reason: reason, Version: version,
	}, bus.PublishOptions{PartitionKey: accountID})
	return err
}
