package messaging

import (
	"bytes"
	"context"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// PublishEvent is POST /messaging/publish.
func (s *Service) PublishEvent(ctx context.Context, r messagingapi.PublishEventRequestObject) (messagingapi.PublishEventResponseObject, error) {
	o, err := s.publishOptions(r.Body)
	if err != nil {
		return nil, err
	}
	if err := s.mayPublish(ctx, r.Body.Topic, o.RoutingKey); err != nil {
		return nil, err
	}
	event, err := s.cfg.Bus.Prepare(r.Body.Topic, r.Body.Payload, o)
	if err != nil {
		return nil, busProblem(err, "payload")
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.PublishTimeout)
	defer cancel()
	queued := false
	if s.outbox != nil {
		queued, err = s.outbox.publish(ctx, event)
	} else {
		err = s.cfg.Bus.PublishPrepared(ctx, event)
	}
	if err != nil {
		return nil, publishProblem(err)
	}
	if !queued { // otherwise when it is sent
		s.announcePublished(ctx, r.Body.Topic, event.Options.MessageID, len(r.Body.Payload))
	}
	return messagingapi.PublishEvent200JSONResponse{Success: true, MessageID: event.Options.MessageID, Queued: queued}, nil
}

// mayPublish asks about each name by which subscribers may get the event.
func (s *Service) mayPublish(ctx context.Context, topics ...string) error {
	if s.cfg.MayPublish == nil {
		return nil
	}
	for _, topic := range topics {
		if topic != "" {
			if err := s.cfg.MayPublish(ctx, topic); err != nil {
				return err
			}
		}
	}
	return nil
}

// maySubscribe checks a pattern of topics, and asks about it.
func (s *Service) maySubscribe(ctx context.Context, pattern string) error {
	if err := s.checkTopic("topic", pattern, true); err != nil || s.cfg.MaySubscribe == nil {
		return err
	}
	return s.cfg.MaySubscribe(ctx, pattern)
}

// publishOptions checks the request member by member, so that the answer can name the one at fault.
func (s *Service) publishOptions(body *messagingapi.PublishEventRequest) (bus.PublishOptions, error) {
	if err := problem.Require("topic", body.Topic); err != nil {
		return bus.PublishOptions{}, err
	}
	if err := s.checkTopic("topic", body.Topic, false); err != nil {
		return bus.PublishOptions{}, err
	}
	switch payload := bytes.TrimLeft(body.Payload, " \t\r\n"); {
	case len(payload) == 0 || bytes.Equal(payload, []byte("null")):
		return bus.PublishOptions{}, problem.Missing("payload")
	case payload[0] != '{':
		return bus.PublishOptions{}, problem.Invalid("payload", "has to be a JSON object")
	}
	in := body.Options
	o := bus.PublishOptions{
		Exchange: in.Exchange, RoutingKey: in.RoutingKey, CorrelationID: in.CorrelationID, PartitionKey: in.PartitionKey,
		Mandatory: in.Mandatory, Headers: in.Headers, Type: events.TypeName(body.Topic),
		Transient: in.Persistent != nil && !*in.Persistent,
	}
	if in.ExchangeType != "" && in.ExchangeType != "topic" {
		return o, problem.New(problem.Unsupported, "member options.exchangeType is %q; only \"topic\" is supported",
			in.ExchangeType).At("options.exchangeType")
	}
	if in.Priority != nil {
		if *in.Priority < 0 || *in.Priority > 9 {
			return o, problem.Invalid("options.priority", "is %d, and has to be 0 to 9", *in.Priority)
		}
		o.Priority = uint8(*in.Priority)
	}
	if in.Expiration != nil {
		if *in.Expiration < 1 || *in.Expiration > maxExpiration.Milliseconds() {
			return o, problem.Invalid("options.expiration", "is %d, and has to be 1 to %d milliseconds",
				*in.Expiration, maxExpiration.Milliseconds())
		}
		o.Expiration = time.Duration(*in.Expiration) * time.Millisecond
	}
	for member, value := range map[string]string{"exchange": in.Exchange, "routingKey": in.RoutingKey,
		"correlationId": in.CorrelationID, "partitionKey": in.PartitionKey} {
		if len(value) > maxShortString {
			return o, problem.Invalid("options."+member, "has %d bytes, at most %d are allowed", len(value), maxShortString)
		}
	}
	if in.RoutingKey != "" {
		if err := s.checkTopic("options.routingKey", in.RoutingKey, false); err != nil {
			return o, err
		}
	}
	size := 0
	for name, value := range in.Headers {
		if size += len(name) + len(value) + headerCost; size > maxHeaders {
			return o, problem.Invalid("options.headers", "has more than %d bytes", maxHeaders)
		}
		if name == bus.HeaderForwardedThrough {
			return o, problem.Invalid("options.headers", "has the header %s, which is for taps: they would pass the event over", name)
		}
		if name == "CC" || name == "BCC" {
			return o, problem.Invalid("options.headers", "has the header %s, which RabbitMQ takes for a list of further queues: choose another name", name)
		}
		if name == "" || len(name) > maxShortString || len(value) > maxHeader {
			return o, problem.Invalid("options.headers", "has a header that is not usable: names have 1 to %d bytes, values "+
				"at most %d", maxShortString, maxHeader)
		}
	}
	return o, nil
}

const (
	maxShortString = 255                            // of AMQP, for names and properties
	maxHeader      = 8 << 10                        // of one header
	maxHeaders     = 60 << 10                       // of all: half of the frame that they have to fit in, less what the node adds
	headerCost     = 6                              // AMQP's own bytes for each
	maxExpiration  = (1<<32 - 1) * time.Millisecond // RabbitMQ's, 49 days
)

// checkTopic refuses what is no topic, or no pattern of topics, and names the member.
func (s *Service) checkTopic(member, topic string, pattern bool) error {
	return busProblem(s.cfg.Bus.CheckTopic(topic, pattern), member)
}

// announcePublished tells of an event that was published, if that is wanted, and never of itself.
func (s *Service) announcePublished(ctx context.Context, topic, id string, size int) {
	if !s.cfg.AnnouncePublished || topic == events.TopicMessagingMessagePublished {
		return
	}
	s.announce(ctx, events.TopicMessagingMessagePublished, &events.MessagePublishedEvent{
		Topic: topic, MessageID: id, SourceService: s.cfg.AppID, PayloadSizeBytes: int64(size)})
}

// announce publishes an event that the answer does not depend on.
func (s *Service) announce(ctx context.Context, topic string, e bus.Event) {
	if _, err := s.cfg.Bus.Publish(ctx, topic, e); err != nil {
		s.cfg.Logger.WarnContext(ctx, "an announcement was not published", "topic", topic, "error", err)
	}
}
