package messaging

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

const (
	maxPrefetch    = 1000    // events that one callback is sent at a time
	maxCallbackURL = 2 << 10 // bytes
)

// CreateSubscription is POST /messaging/subscribe.
func (s *Service) CreateSubscription(ctx context.Context, r messagingapi.CreateSubscriptionRequestObject) (messagingapi.CreateSubscriptionResponseObject, error) {
	rec, err := s.newRecord(ctx, r.Body)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SubscribeTimeout)
	defer cancel()
	sub, err := s.create(ctx, rec)
	if err != nil {
		return nil, err
	}
	return messagingapi.CreateSubscription200JSONResponse{SubscriptionID: rec.ID, QueueName: sub.queue.Queue()}, nil
}

// create opens a new subscription, keeps it if it is durable, and tells of it. A durable one is in the store before its queue
// is there: a node that dies in between leaves no queue that nobody knows.
func (s *Service) create(ctx context.Context, rec record) (*subscription, error) {
	if rec.Durable {
		if err := s.begin(ctx, rec); err != nil {
			return nil, storeProblem(err)
		}
	}
	sub, err := s.open(ctx, rec)
	if err != nil {
		if rec.Durable {
			s.neverOpened(ctx, rec, err)
		}
		return nil, err
	}
	if rec.Durable {
		if err := s.begun(ctx, rec); err != nil {
			s.undo(ctx, sub)
			return nil, storeProblem(err)
		}
		s.keep(sub)
	}
	s.announce(ctx, events.TopicMessagingSubscriptionCreated,
		&events.SubscriptionCreatedEvent{SubscriptionID: rec.ID, Topic: rec.Topic, SubscriberAppID: s.cfg.AppID})
	return sub, nil
}

// newRecord checks the request member by member and makes the subscription's record of it.
func (s *Service) newRecord(ctx context.Context, body *messagingapi.CreateSubscriptionRequest) (record, error) {
	if err := problem.Require("topic", body.Topic, "callbackUrl", body.CallbackURL); err != nil {
		return record{}, err
	}
	if err := s.maySubscribe(ctx, body.Topic); err != nil {
		return record{}, err
	}
	in := body.Options
	switch {
	case in.PrefetchCount != nil && (*in.PrefetchCount < 1 || *in.PrefetchCount > maxPrefetch):
		return record{}, problem.Invalid("options.prefetchCount", "is %d, and has to be 1 to %d", *in.PrefetchCount, maxPrefetch)
	case in.Group != "" && !in.Durable:
		return record{}, problem.Invalid("options.group", "needs options.durable to be true: a group's queue is durable")
	case in.Group != "" && len(body.Topic)+1+len(in.Group) > maxShortString:
		return record{}, problem.Invalid("options.group", "is too long: with topic and a dot it may have %d bytes", maxShortString)
	}
	if err := s.checkDurable(in.Durable); err != nil {
		return record{}, err
	}
	if len(body.CallbackURL) > maxCallbackURL {
		return record{}, problem.Invalid("callbackUrl", "has %d bytes, at most %d are allowed", len(body.CallbackURL), maxCallbackURL)
	}
	if err := s.cfg.Policy.CheckURL(ctx, body.CallbackURL); err != nil {
		return record{}, callbackProblem(err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return record{}, err
	}
	rec := record{
		ID: id.String(), Topic: body.Topic, CallbackURL: body.CallbackURL, Group: in.Group, Durable: in.Durable,
		Exclusive: in.Exclusive, AutoAck: in.AutoAck, NoDeadLetter: in.UseDeadLetter != nil && !*in.UseDeadLetter,
		CreatedAt: time.Now().UTC(),
	}
	if in.PrefetchCount != nil {
		rec.PrefetchCount = *in.PrefetchCount
	}
	if rec.Durable && rec.Group == "" {
		rec.Group = rec.ownGroup()
	}
	return rec, nil
}

// checkDurable refuses what could not be remembered.
func (s *Service) checkDurable(durable bool) error {
	if !durable || s.cfg.Factory != nil {
		return nil
	}
	return problem.New(problem.Unsupported,
		"member options.durable is true, and this node has no store to remember subscriptions in").At("options.durable")
}

// RemoveSubscription is POST /messaging/unsubscribe.
func (s *Service) RemoveSubscription(ctx context.Context, r messagingapi.RemoveSubscriptionRequestObject) (messagingapi.RemoveSubscriptionResponseObject, error) {
	id := r.Body.SubscriptionID
	if err := problem.Require("subscriptionId", id); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SubscribeTimeout)
	defer cancel()
	found, err := s.remove(ctx, id, false)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, problem.New(problem.NotFound, "member subscriptionId: there is no subscription %.64q; it was removed, or went with the process "+
			"that had it", id).At("subscriptionId")
	}
	return messagingapi.RemoveSubscription200JSONResponse{Success: true}, nil
}

// remove ends a subscription, or a tap, wherever it is known: here, and in the store. What fails half way is known still,
// so that it can be asked for again.
func (s *Service) remove(ctx context.Context, id string, tap bool) (found bool, err error) {
	rec, kept, shared, err := s.retire(ctx, id, tap)
	if err != nil {
		return false, storeProblem(err)
	}
	s.mu.Lock()
	sub := s.subscriptions[id]
	if sub != nil && sub.record.isTap() != tap {
		sub = nil
	}
	elsewhere := !kept && sub != nil && sub.kept // removed by another instance; what is left of it here goes too
	s.mu.Unlock()
	switch {
	case sub == nil && !kept:
		return false, nil
	case sub != nil:
		err = sub.end(ctx, shared)
	case !shared && !s.joined(ctx, rec): // another instance's, or not resumed yet: its queue is removed from here all the same
		if err = s.removeQueue(ctx, rec); rec.Exclusive && errors.Is(err, bus.ErrInvalid) {
			err, kept = nil, false // the instance that reads it alone hears of it, and ends queue and record
		}
	}
	if err != nil {
		blame := "subscriptionId"
		if tap {
			blame = "tapId"
		}
		return false, busProblem(err, blame)
	}
	s.drop(id)
	if elsewhere {
		return false, nil
	}
	if kept {
		if err := s.forget(ctx, id); err != nil {
			return false, storeProblem(err)
		}
	}
	s.announce(ctx, events.TopicMessagingSubscriptionRemoved,
		&events.SubscriptionRemovedEvent{SubscriptionID: id, Reason: events.SubscriptionRemovedReasonExplicit})
	return true, nil
}

// removeQueue removes the queue of a subscription that is not open here. Its callback is not called for what is in it.
func (s *Service) removeQueue(ctx context.Context, rec record) error {
	queue, err := s.cfg.Bus.SubscribeRaw(ctx, rec.Topic, func(context.Context, *bus.Received) error { return nil },
		bus.SubscriptionOptions{Group: rec.Group, Durable: rec.Durable, Exclusive: rec.Exclusive, AutoAck: rec.AutoAck})
	if err != nil {
		return err
	}
	return queue.Remove(ctx)
}

func (s *Service) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subscriptions, id)
}

// end stops calling the callback, and removes the queue unless others read it. A callback at work may finish, in half of
// the time that there is; then it is given up, for the queue is to go in the other half.
func (sub *subscription) end(ctx context.Context, shared bool) error {
	finishing, cancel := context.WithTimeout(ctx, sub.service.cfg.SubscribeTimeout/2)
	defer cancel()
	if err := sub.queue.Close(finishing); err != nil {
		sub.service.cfg.Logger.Debug("a subscription ended while its callback was at work", "subscription", sub.record.ID, "error", err)
	}
	if shared || !sub.record.Durable || sub.service.joined(ctx, sub.record) {
		return nil
	}
	return sub.queue.Remove(ctx)
}

// joined asks the store once more, before a queue is removed, whether another subscription reads it: to let a callback finish takes
// time. What the store does not answer is told by who asked it first.
func (s *Service) joined(ctx context.Context, rec record) bool {
	if s.cfg.Factory == nil || rec.ownsQueue() {
		return false
	}
	all, err := s.readRecords(ctx)
	return err == nil && all.read(rec.Topic, rec.Group)
}

// open declares the queue of a subscription and begins to call its callback, or to copy.
func (s *Service) open(ctx context.Context, rec record) (*subscription, error) {
	sub := &subscription{record: rec, service: s}
	handler, timeout, blame := sub.deliver, s.cfg.CallbackTimeout, "options.group"
	if rec.isTap() {
		handler, timeout, blame = sub.forward, s.cfg.PublishTimeout, "topic"
	}
	queue, err := s.cfg.Bus.SubscribeRaw(ctx, rec.Topic, handler, bus.SubscriptionOptions{
		Group: rec.Group, Durable: rec.Durable, Exclusive: rec.Exclusive, AutoAck: rec.AutoAck,
		PrefetchCount: rec.PrefetchCount, NoDeadLetter: rec.NoDeadLetter, Timeout: timeout, Service: "messaging",
	})
	if err != nil {
		return nil, busProblem(err, blame)
	}
	sub.queue = queue
	s.mu.Lock()
	late := s.stopped
	if !late {
		s.subscriptions[rec.ID] = sub
	}
	s.mu.Unlock()
	if late {
		s.release(ctx, sub)
		return nil, problem.New(problem.Unavailable, "the node is stopping")
	}
	return sub, nil
}

// release stops reading, also for a caller that is gone. A durable queue stays, with what is in it.
func (s *Service) release(ctx context.Context, sub *subscription) {
	s.drop(sub.record.ID)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.SubscribeTimeout)
	defer cancel()
	if err := sub.queue.Close(ctx); err != nil {
		s.cfg.Logger.Debug("a subscription did not close; it goes with its connection", "queue", sub.queue.Queue(), "error", err)
	}
}

// neverOpened forgets a subscription whose queue could not be opened. Where the broker is there and has not answered, the queue
// may be: then the record stays, for whoever finishes it.
func (s *Service) neverOpened(ctx context.Context, rec record, why error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.SubscribeTimeout)
	defer cancel()
	asking, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	if !errors.Is(why, bus.ErrInvalid) && s.cfg.Bus.Ready(asking) == nil {
		return
	}
	if err := s.forget(ctx, rec.ID); err != nil {
		s.cfg.Logger.Debug("a subscription that was not created is still in the store; it is removed later", "subscription", rec.ID, "error", err)
	}
}

// undo undoes create, also for a caller that is gone: the record first, lest somebody take up what nobody asked for. The
// queue of a group that was named may have been there before, with other readers and with events that wait: only a queue of
// the record's own is removed. What fails is finished later.
func (s *Service) undo(ctx context.Context, sub *subscription) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.SubscribeTimeout)
	defer cancel()
	rec := sub.record
	_, _, _, err := s.retire(ctx, rec.ID, rec.isTap())
	if err != nil { // the store may have it as one that goes on
		s.refuse(rec.ID)
	}
	if !rec.ownsQueue() {
		s.release(ctx, sub)
	} else {
		s.drop(rec.ID)
		if removing := sub.queue.Remove(ctx); removing != nil {
			s.cfg.Logger.Warn("the queue of a subscription that was not created could not be removed yet",
				"queue", sub.queue.Queue(), "error", removing)
			return
		}
	}
	if err == nil {
		err = s.forget(ctx, rec.ID)
	}
	if err != nil {
		s.cfg.Logger.Warn("a subscription that was not created is still in the store; it is removed later", "subscription", rec.ID, "error", err)
	}
}

// refuse notes a subscription that was answered with an error and that the store may have all the same.
func (s *Service) refuse(id string) {
	s.mu.Lock()
	s.refused[id] = time.Now()
	s.mu.Unlock()
	s.reconcileNow()
}

// isRefused reports whether a subscription was answered with an error here.
func (s *Service) isRefused(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.refused[id].IsZero()
}

// forgetRefused drops those that the store does not have, and that no write on its way can bring there any more.
func (s *Service) forgetRefused(all records) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, at := range s.refused {
		if _, found := all[id]; !found && time.Since(at) > 2*s.cfg.SubscribeTimeout {
			delete(s.refused, id)
		}
	}
}
