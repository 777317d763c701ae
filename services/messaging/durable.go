package messaging

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// A record is a subscription as it is kept.
type record struct {
	ID            string    `json:"subscriptionId"`
	Topic         string    `json:"topic"`
	CallbackURL   string    `json:"callbackUrl"`
	Group         string    `json:"group,omitzero"`
	Durable       bool      `json:"durable,omitzero"`
	Exclusive     bool      `json:"exclusive,omitzero"`
	AutoAck       bool      `json:"autoAck,omitzero"`
	NoDeadLetter  bool      `json:"noDeadLetter,omitzero"`
	PrefetchCount int       `json:"prefetchCount,omitzero"`
	CreatedAt     time.Time `json:"createdAt"`
}

// recordsKey is the one key of the store: subscriptions are few, and are always read together.
const recordsKey = "durable"

// records is its value, by subscription id.
type records map[string]record

// remember keeps a subscription in the store.
func (s *Service) remember(ctx context.Context, rec record) error {
	return s.change(ctx, func(all records) bool {
		all[rec.ID] = rec
		return true
	})
}

// forget takes a subscription out of the store. It returns what was kept, if anything, and whether another one reads the
// same queue.
func (s *Service) forget(ctx context.Context, id string) (rec record, found, shared bool, err error) {
	if s.cfg.Factory == nil {
		return record{}, false, false, nil
	}
	err = s.change(ctx, func(all records) bool {
		rec, found = all[id]
		delete(all, id)
		shared = found && all.read(rec.Topic, rec.Group)
		return found
	})
	return rec, found, shared, err
}

// read reports whether a subscription reads the queue of that group.
func (all records) read(topic, group string) bool {
	for _, rec := range all {
		if rec.Topic == topic && rec.Group == group {
			return true
		}
	}
	return false
}

// change applies fn to what is kept, again until nobody else changed it meanwhile. fn returns whether it changed
// anything.
func (s *Service) change(ctx context.Context, fn func(all records) bool) error {
	store, err := state.Open[records](ctx, s.cfg.Factory, SubscriptionStore)
	if err != nil {
		return err
	}
	for {
		entry, err := store.GetWithETag(ctx, recordsKey)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		if entry.Value == nil {
			entry.Value = records{}
		}
		if !fn(entry.Value) {
			return nil
		}
		_, err = store.TrySaveWith(ctx, recordsKey, entry.Value, entry.ETag, state.SaveOptions{Expiry: state.Never})
		if !errors.Is(err, state.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
}

// resume opens the durable subscriptions that are not open here. It tries all, and returns why some are not.
func (s *Service) resume(ctx context.Context) error {
	if s.cfg.Factory == nil {
		return nil
	}
	store, err := state.Open[records](ctx, s.cfg.Factory, SubscriptionStore)
	if err != nil {
		return fmt.Errorf("durable subscriptions cannot be read: %w", err)
	}
	all, err := store.Get(ctx, recordsKey)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("durable subscriptions cannot be read: %w", err)
	}
	var errs []error
	for _, rec := range all {
		s.mu.Lock()
		_, open := s.subscriptions[rec.ID]
		s.mu.Unlock()
		if open {
			continue
		}
		if _, err := s.open(ctx, rec); err != nil {
			errs = append(errs, fmt.Errorf("durable subscription %s does not run: %w", rec.ID, err))
		}
	}
	return errors.Join(errs...)
}

// keepResuming goes on with what could not be resumed at first, then follows the removal of subscriptions by other
// instances, until the service ends.
func (s *Service) keepResuming(err error) {
	for wait := time.Second; err != nil; wait = min(2*wait, 30*time.Second) {
		s.cfg.Logger.Warn("durable subscriptions are not all running; trying again", "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-s.life.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		err = s.resume(s.life)
		s.setResumeErr(err)
	}
	if s.cfg.Factory == nil {
		return
	}
	following, err := bus.Subscribe(s.life, s.cfg.Bus, events.TopicMessagingSubscriptionRemoved, s.removedElsewhere,
		bus.SubscriptionOptions{AutoAck: true, NoDeadLetter: true})
	if err != nil {
		if s.life.Err() == nil {
			s.cfg.Logger.Error("the removal of subscriptions by other instances is not followed", "error", err)
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

// removedElsewhere ends a durable subscription here that another instance has removed.
func (s *Service) removedElsewhere(_ context.Context, e *events.SubscriptionRemovedEvent) error {
	s.mu.Lock()
	sub := s.subscriptions[e.SubscriptionID]
	delete(s.subscriptions, e.SubscriptionID)
	s.mu.Unlock()
	if sub == nil {
		return nil // the common case: it was removed here
	}
	s.background(func(life context.Context) {
		ctx, cancel := context.WithTimeout(life, s.cfg.SubscribeTimeout)
		defer cancel()
		if err := s.endRemoved(ctx, sub); err != nil {
			s.cfg.Logger.Warn("a subscription removed by another instance could not be ended", "subscription", e.SubscriptionID, "error", err)
		}
	})
	return nil
}

// endRemoved removes the queue once more, unless others read it: this consumer may have declared it again when the other
// instance removed it.
func (s *Service) endRemoved(ctx context.Context, sub *subscription) error {
	store, err := state.Open[records](ctx, s.cfg.Factory, SubscriptionStore)
	if err != nil {
		return err
	}
	all, err := store.Get(ctx, recordsKey)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	return sub.end(ctx, all.read(sub.record.Topic, sub.record.Group))
}
