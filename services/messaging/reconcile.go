package messaging

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// reconcile makes this instance read what the store says: it opens durable subscriptions that are not open here, ends
// those that were removed, and finishes removals that somebody else has left half done. It tries all, and returns why some
// are not as they should be.
func (s *Service) reconcile(ctx context.Context) error {
	mine := s.kept() // before the store is read: what is in both is never taken for removed
	all, err := s.readRecords(ctx)
	if err != nil {
		return fmt.Errorf("durable subscriptions cannot be read: %w", err)
	}
	s.forgetRefused(all)
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(all)) {
		switch rec := all[id]; {
		case s.isRefused(id), rec.ended() && time.Since(rec.EndedAt) > 2*s.cfg.SubscribeTimeout:
			err = s.finish(ctx, rec)
		case !rec.ended() && !s.has(id):
			err = s.resume(ctx, rec)
		default:
			continue
		}
		if err != nil {
			errs = append(errs, err)
		}
		if errors.Is(err, bus.ErrUnavailable) {
			break // the next would wait for the broker as long
		}
	}
	for _, sub := range mine {
		if rec, kept := all[sub.record.ID]; !kept || rec.ended() {
			errs = append(errs, s.leave(ctx, sub, all))
		}
	}
	return errors.Join(errs...)
}

func (s *Service) readRecords(ctx context.Context) (records, error) {
	store, err := state.Open[records](ctx, s.cfg.Factory, SubscriptionStore)
	if err != nil {
		return nil, err
	}
	all, err := store.Get(ctx, recordsKey)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	return all, err
}

// resume opens a subscription that the store has and this instance has not. An exclusive one that another instance reads
// is that one's, until it ends.
func (s *Service) resume(ctx context.Context, rec record) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SubscribeTimeout)
	defer cancel()
	sub, err := s.open(ctx, rec)
	if rec.Exclusive && errors.Is(err, bus.ErrInvalid) {
		s.cfg.Logger.Debug("another instance reads an exclusive subscription", "subscription", rec.ID, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("durable subscription %s does not run: %w", rec.ID, err)
	}
	s.keep(sub)
	return nil
}

// finish completes a removal that was begun, or takes back what a node has left that did not come to open it. The queue of a
// group that was named is not removed then: it may have been there before.
func (s *Service) finish(ctx context.Context, rec record) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SubscribeTimeout)
	defer cancel()
	if refused := s.isRefused(rec.ID); (refused || rec.Begun) && !s.has(rec.ID) {
		var err error
		if rec.ownsQueue() {
			err = s.removeQueue(ctx, rec)
		}
		if err == nil {
			err = s.forget(ctx, rec.ID)
		}
		if err != nil {
			return fmt.Errorf("durable subscription %s, which was not created, is not removed yet: %w", rec.ID, err)
		}
		s.mu.Lock()
		delete(s.refused, rec.ID)
		s.mu.Unlock()
		return nil
	}
	if _, err := s.remove(ctx, rec.ID, rec.isTap()); err != nil {
		return fmt.Errorf("durable subscription %s is not removed yet: %w", rec.ID, err)
	}
	return nil
}

// leave ends a subscription here that was removed through another instance. It removes the queue once more, unless others
// read it: this consumer may have declared it again when the other instance removed it.
func (s *Service) leave(ctx context.Context, sub *subscription, all records) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SubscribeTimeout)
	defer cancel()
	if err := sub.end(ctx, all.read(sub.record.Topic, sub.record.Group)); err != nil {
		return fmt.Errorf("durable subscription %s was removed elsewhere and has not ended here: %w", sub.record.ID, err)
	}
	s.drop(sub.record.ID)
	if err := s.forget(ctx, sub.record.ID); err != nil {
		return fmt.Errorf("durable subscription %s has ended and is still in the store: %w", sub.record.ID, err)
	}
	return nil
}

// keepReconciling follows the store until the service ends: soon after a failure, at once when another instance tells
// that it removed a subscription, and from time to time in any case, because an instance that ends for good tells nobody.
func (s *Service) keepReconciling(err error) {
	for pause := time.Second; ; {
		wait := s.cfg.ReconcileInterval
		if err != nil {
			s.cfg.Logger.Warn("durable subscriptions are not all as they should be; trying again", "error", err)
			wait = min(pause, wait)
			pause *= 2
		} else {
			pause = time.Second
		}
		timer := time.NewTimer(wait)
		select {
		case <-s.life.Done():
		case <-s.wake:
		case <-timer.C:
		}
		timer.Stop()
		if s.life.Err() != nil {
			return
		}
		err = s.reconcile(s.life)
		s.setResumeErr(err)
	}
}

// reconcileNow ends the pause before the next reconciliation.
func (s *Service) reconcileNow() {
	select {
	case s.wake <- struct{}{}:
	default: // asked already
	}
}

// hearRemovals wakes the reconciliation when another instance has removed a subscription, until the service ends.
func (s *Service) hearRemovals() {
	following, err := bus.Subscribe(s.life, s.cfg.Bus, events.TopicMessagingSubscriptionRemoved,
		func(_ context.Context, e *events.SubscriptionRemovedEvent) error {
			if s.has(e.SubscriptionID) { // otherwise it was removed here, which is the common case
				s.reconcileNow()
			}
			return nil
		}, bus.SubscriptionOptions{AutoAck: true, NoDeadLetter: true, Service: "messaging"})
	if err != nil {
		if s.life.Err() == nil {
			s.cfg.Logger.Error("the removal of subscriptions by other instances is not followed at once", "error", err)
		}
		return
	}
	<-s.life.Done()
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.SubscribeTimeout)
	defer cancel()
	if err := following.Close(ctx); err != nil {
		s.cfg.Logger.Debug("a subscription did not close; it goes with its connection", "error", err)
	}
}

// has reports whether a subscription is open here.
func (s *Service) has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.subscriptions[id] != nil
}

// keep notes that the store has a subscription that is open here.
func (s *Service) keep(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub.kept = true
}

// kept are the subscriptions open here that the store had.
func (s *Service) kept() []*subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kept []*subscription
	for _, sub := range s.subscriptions {
		if sub.kept {
			kept = append(kept, sub)
		}
	}
	return kept
}
