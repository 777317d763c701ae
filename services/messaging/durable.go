package messaging

import (
	"context"
	"errors"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/problem"
)

// A record is a subscription as it is kept: one with a callback, or a tap.
type record struct {
	ID            string    `json:"subscriptionId"`
	Topic         string    `json:"topic"`
	CallbackURL   string    `json:"callbackUrl,omitzero"`
	Exchange      string    `json:"exchange,omitzero"` // where a tap's copies go
	Group         string    `json:"group,omitzero"`
	Durable       bool      `json:"durable,omitzero"`
	Exclusive     bool      `json:"exclusive,omitzero"`
	AutoAck       bool      `json:"autoAck,omitzero"`
	NoDeadLetter  bool      `json:"noDeadLetter,omitzero"`
	PrefetchCount int       `json:"prefetchCount,omitzero"`
	CreatedAt     time.Time `json:"createdAt"`
	// EndedAt is when the subscription was told to end. The record stays until the queue is gone, so that a removal that
	// fails half way can be asked for again, and is finished by whoever finds it.
	EndedAt time.Time `json:"endedAt,omitzero"`
	// Begun marks a subscription whose queue is being opened for the first time. It has EndedAt too until that is done, so that
	// nobody resumes it, and whoever finds it later finishes what its node has left.
	Begun bool `json:"begun,omitzero"`
}

// ended reports whether the subscription was told to end.
func (r record) ended() bool { return !r.EndedAt.IsZero() }

// isTap reports whether the subscription copies to an exchange instead of calling back.
func (r record) isTap() bool { return r.Exchange != "" }

// ownGroup is the group that a durable subscription gets that names none: its queue leads back to the record.
func (r record) ownGroup() string {
	if r.isTap() {
		return "tap." + r.ID
	}
	return "callback." + r.ID
}

// ownsQueue reports whether the queue is this subscription's alone, rather than that of a group which others may read too.
func (r record) ownsQueue() bool { return !r.Durable || r.Group == r.ownGroup() }

// recordsKey is the one key of the store: subscriptions are few, and are always read together.
const recordsKey = "durable"

// records is its value, by subscription id.
type records map[string]record

// maxRecordsBytes is how large it may become by new subscriptions: some 12 000 of usual length. The rest of what a key holds is
// for marking them as ended.
const maxRecordsBytes = state.MaxValueBytes / 4 * 3

// begin keeps a subscription in the store that is about to be opened.
func (s *Service) begin(ctx context.Context, rec record) error {
	rec.EndedAt, rec.Begun = time.Now().UTC(), true
	return s.remember(ctx, rec)
}

// begun notes that a subscription is open.
func (s *Service) begun(ctx context.Context, rec record) error {
	found := false
	err := s.change(ctx, func(all records) bool {
		var kept record
		if kept, found = all[rec.ID]; found {
			kept.EndedAt, kept.Begun = time.Time{}, false
			all[rec.ID] = kept
		}
		return found
	})
	if err == nil && !found {
		return problem.New(problem.Unavailable, "the subscription took too long to open, and was taken back; subscribe again")
	}
	return err
}

// remember keeps a subscription in the store.
func (s *Service) remember(ctx context.Context, rec record) error {
	full := false
	err := s.change(ctx, func(all records) bool {
		all[rec.ID] = rec
		encoded, err := json.Marshal(all)
		full = err == nil && len(encoded) > maxRecordsBytes
		return !full
	})
	if err == nil && full {
		return problem.New(problem.ValueTooLarge, "there are as many durable subscriptions and taps as one set of nodes keeps; remove some, "+
			"or let several callbacks share one group")
	}
	return err
}

// retire marks a subscription, or a tap, in the store as ended. It returns what is kept, if anything, and whether another
// one reads the same queue.
func (s *Service) retire(ctx context.Context, id string, tap bool) (rec record, found, shared bool, err error) {
	if s.cfg.Factory == nil {
		return record{}, false, false, nil
	}
	err = s.change(ctx, func(all records) bool {
		if rec, found = all[id]; !found || rec.isTap() != tap {
			found = false
			return false
		}
		first := !rec.ended() || rec.Begun
		if first {
			rec.EndedAt, rec.Begun = time.Now().UTC(), false
			all[id] = rec
		}
		shared = all.read(rec.Topic, rec.Group)
		return first
	})
	return rec, found, shared, err
}

// forget takes a subscription out of the store, if it is there.
func (s *Service) forget(ctx context.Context, id string) error {
	return s.change(ctx, func(all records) bool {
		_, found := all[id]
		delete(all, id)
		return found
	})
}

// read reports whether a subscription that goes on, or is being opened, reads the queue of that group.
func (all records) read(topic, group string) bool {
	for _, rec := range all {
		if rec.Topic == topic && rec.Group == group && (!rec.ended() || rec.Begun) {
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
