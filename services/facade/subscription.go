package facade

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// A Subscription says which events the app takes, and where. It is declared in a file, or by the app at GET /dapr/subscribe.
type Subscription struct {
	PubSub string
	Topic  string
	// Rules are tried in order; the first whose Match is true has the event. Default has the rest.
	Rules   []Rule
	Default string
	// DeadLetterTopic gets, on the same broker, the events that the app could not handle. Default: they are dead letters of the bus.
	DeadLetterTopic string
	Metadata        map[string]string
	Bulk            bool // the app takes events in the form of bulk delivery

	scopes   []string
	pathless bool // it has no routes: events go to the app without a path, over gRPC
}

// A Rule sends events to a path of the app.
type Rule struct {
	Match string // an expression of CEL over event
	Path  string
}

// raw reports whether the app takes what was sent as it is.
func (s Subscription) raw() bool {
	for name, value := range s.Metadata {
		if strings.EqualFold(name, "rawPayload") {
			raw, err := flag(value)
			return err == nil && raw
		}
	}
	return false
}

// same reports whether two subscriptions of one topic have the same routes: then they are one.
func (s Subscription) same(other Subscription) bool {
	return s.Default == other.Default && slices.Equal(s.Rules, other.Rules)
}

// mark tells a subscription's queue from that of the first one of the same topic, so that each gets every event: it is made of the routes.
func (s Subscription) mark() string {
	hash := sha256.New()
	for _, rule := range append(slices.Clone(s.Rules), Rule{Path: s.Default}) {
		_, _ = fmt.Fprintf(hash, "%q %q\n", rule.Match, rule.Path)
	}
	return hex.EncodeToString(hash.Sum(nil)[:4])
}

// subscribing asks the app what it takes until it answers, and subscribes. Why it cannot yet is logged once, for it may be a mistake that stays.
func (s *Service) subscribing(life context.Context) {
	said := ""
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := s.subscribe(life)
		if err == nil || life.Err() != nil {
			return
		}
		s.note(err)
		if err.Error() != said {
			said = err.Error()
			s.cfg.Logger.WarnContext(life, "the app's subscriptions are not made yet; trying again until they are", "error", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-life.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// subscribe makes the subscriptions that are declared and those that the app names. All are made, or none. Several of one topic get each event, each on a
// queue of its own; the first has the name that a single one would have.
func (s *Service) subscribe(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, s.cfg.AppTimeout)
	asked, err := s.channel.subscriptions(asking)
	cancel()
	if err != nil {
		return err
	}
	var made []*delivery
	seen := map[string][]Subscription{}
	for _, wanted := range slices.Concat(s.cfg.Subscriptions, asked) {
		name := wanted.PubSub + " " + wanted.Topic
		if slices.ContainsFunc(seen[name], wanted.same) {
			continue
		}
		d, err := s.deliveryOf(wanted, s.channel)
		if err == nil && len(seen[name]) > 0 {
			d.group += "-" + wanted.mark()
		}
		seen[name] = append(seen[name], wanted)
		if err == nil {
			err = d.begin(ctx)
		}
		if err != nil {
			for _, d := range made {
				err = errors.Join(err, d.end(ctx))
			}
			return err
		}
		made = append(made, d)
		s.cfg.Logger.InfoContext(ctx, "the app is subscribed", "pubsub", wanted.PubSub, "topic", wanted.Topic)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliveries, s.pending = made, nil
	return nil
}

func (s *Service) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = err
}

// deliveryOf checks a subscription: its broker and topics exist, its rules can be evaluated.
func (s *Service) deliveryOf(wanted Subscription, to receiver) (*delivery, error) {
	p, topic, err := s.pubsub(wanted.PubSub, wanted.Topic, true)
	if err != nil {
		return nil, fmt.Errorf("subscription to %q of %q: %w", wanted.Topic, wanted.PubSub, err)
	}
	d := &delivery{service: s, wanted: wanted, to: to, pubsub: p, topic: topic, group: cmp.Or(p.Group, s.cfg.AppID)}
	if wanted.DeadLetterTopic != "" {
		if err := s.allow(p, p.MayPublish, wanted.DeadLetterTopic); err != nil {
			return nil, fmt.Errorf("subscription to %q of %q: %w", wanted.Topic, wanted.PubSub, err)
		}
		if d.deadLetters, err = topicOf(p.Bus, wanted.DeadLetterTopic, false); err != nil {
			return nil, fmt.Errorf("subscription to %q of %q: %w", wanted.Topic, wanted.PubSub, err)
		}
	}
	for _, rule := range wanted.Rules {
		match, err := compileRule(rule)
		if err != nil {
			return nil, fmt.Errorf("subscription to %q of %q: %w", wanted.Topic, wanted.PubSub, err)
		}
		d.rules = append(d.rules, match)
	}
	return d, nil
}

// begin subscribes. The instances of the app share the queue.
func (d *delivery) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.service.cfg.AppTimeout)
	defer cancel()
	var err error
	d.queue, err = d.pubsub.Bus.SubscribeRaw(ctx, d.topic, d.deliver, bus.SubscriptionOptions{
		Group: d.group, Durable: true, Timeout: d.service.cfg.AppTimeout,
		Retry: &bus.RetryPolicy{Immediate: -1, MaxAttempts: orNone(d.service.cfg.Retries), Delay: d.service.cfg.RetryDelay},
	})
	return err
}

// orNone is the bus's word for a number of redeliveries, where 0 is the default.
func orNone(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

func (d *delivery) end(ctx context.Context) error {
	if d.queue == nil {
		return nil
	}
	return d.queue.Close(ctx)
}
