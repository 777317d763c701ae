package facade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

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

	scopes []string
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

// subscribe makes the subscriptions that are declared and those that the app names. All are made, or none.
func (s *Service) subscribe(ctx context.Context) error {
	asked, err := s.discover(ctx)
	if err != nil {
		return err
	}
	var made []*delivery
	for _, wanted := range append(append([]Subscription(nil), s.cfg.Subscriptions...), asked...) {
		d, err := s.deliveryOf(wanted)
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

// discover is GET /dapr/subscribe of the app. One that has no such path subscribes to nothing.
func (s *Service) discover(ctx context.Context) ([]Subscription, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AppTimeout)
	defer cancel()
	request, err := s.toApp(ctx, http.MethodGet, "/dapr/subscribe", nil)
	if err != nil {
		return nil, err
	}
	response, err := s.app.Do(request)
	if err != nil {
		return nil, fmt.Errorf("the app does not answer at %s: %w", s.cfg.AppAddress, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, s.cfg.MaxBodyBytes))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the app's subscriptions: %w", err)
	case response.StatusCode == http.StatusNotFound, response.StatusCode == http.StatusNoContent:
		return nil, nil
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the app answered GET /dapr/subscribe with %s", response.Status)
	}
	var wire []struct {
		PubSub     string            `json:"pubsubname,case:ignore"`
		Topic      string            `json:"topic"`
		Route      string            `json:"route"`
		DeadLetter string            `json:"deadLetterTopic,case:ignore"`
		Metadata   map[string]string `json:"metadata"`
		Routes     struct {
			Rules []struct {
				Match string `json:"match"`
				Path  string `json:"path"`
			} `json:"rules"`
			Default string `json:"default"`
		} `json:"routes"`
		Bulk struct {
			Enabled bool `json:"enabled"`
		} `json:"bulkSubscribe,case:ignore"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return nil, fmt.Errorf("the app's answer to GET /dapr/subscribe is not a list of subscriptions: %w", err)
	}
	list := make([]Subscription, len(wire))
	for i, one := range wire {
		list[i] = Subscription{PubSub: one.PubSub, Topic: one.Topic, Default: one.Routes.Default, DeadLetterTopic: one.DeadLetter, Metadata: one.Metadata, Bulk: one.Bulk.Enabled}
		if list[i].Default == "" {
			list[i].Default = one.Route
		}
		for _, rule := range one.Routes.Rules {
			list[i].Rules = append(list[i].Rules, Rule{Match: rule.Match, Path: rule.Path})
		}
	}
	return list, nil
}

// deliveryOf checks a subscription: its broker and topics exist, its rules can be evaluated.
func (s *Service) deliveryOf(wanted Subscription) (*delivery, error) {
	p, topic, err := s.pubsub(wanted.PubSub, wanted.Topic, true)
	if err != nil {
		return nil, fmt.Errorf("subscription to %q of %q: %w", wanted.Topic, wanted.PubSub, err)
	}
	d := &delivery{service: s, wanted: wanted, pubsub: p, topic: topic}
	if wanted.DeadLetterTopic != "" {
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
	group := d.pubsub.Group
	if group == "" {
		group = d.service.cfg.AppID
	}
	var err error
	d.queue, err = d.pubsub.Bus.SubscribeRaw(ctx, d.topic, d.deliver, bus.SubscriptionOptions{
		Group: group, Durable: true, Timeout: d.service.cfg.AppTimeout,
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
