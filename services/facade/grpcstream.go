package facade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/facade/internal/daprpb"
)

// A stream is a subscription that the app opens itself, and that lasts as long as it is open (SubscribeTopicEventsAlpha1). Its queue stays, as
// that of any subscription. Several streams of one topic share the events.
// One goroutine sends and one hears: both are over when the call has returned, which ends what an app that does not read keeps waiting.
type stream struct {
	grpc.ServerStream
	closed <-chan struct{} // when the app has gone, or the node stops
	out    chan sending

	mu      sync.Mutex
	waiting map[string]chan daprpb.TopicEventResponse_Status // by the event's id
}

// A sending is an event on its way to the app, and who is told what became of it.
type sending struct {
	event *daprpb.SubscribeTopicEventsResponse
	sent  chan error // has room for one
}

// streamTopicEvents serves a stream.
func streamTopicEvents(srv any, opened grpc.ServerStream) (err error) {
	s, ctx := srv.(*Service), opened.Context()
	if err := s.admit(ctx); err != nil {
		return err
	}
	defer s.recovered(ctx, "SubscribeTopicEventsAlpha1", &err)
	first := new(daprpb.SubscribeTopicEventsRequest)
	if err := opened.RecvMsg(first); err != nil {
		return err
	}
	wanted := first.GetInitialRequest()
	if wanted == nil {
		return status.Error(codes.InvalidArgument, "the first message of a stream is to be its initial request")
	}
	if err := s.streaming(ctx, opened, wanted); err != nil {
		return s.statusOf(ctx, "SubscribeTopicEventsAlpha1", err)
	}
	return nil
}

// streaming subscribes, and hears what the app says of the events until it has gone.
func (s *Service) streaming(ctx context.Context, opened grpc.ServerStream, wanted *daprpb.SubscribeTopicEventsRequestInitial) error {
	ctx, gone := context.WithCancel(ctx)
	defer gone()
	st := &stream{ServerStream: opened, closed: ctx.Done(), out: make(chan sending), waiting: map[string]chan daprpb.TopicEventResponse_Status{}}
	d, err := s.deliveryOf(Subscription{
		PubSub: wanted.GetPubsubName(), Topic: wanted.GetTopic(), Metadata: wanted.GetMetadata(), DeadLetterTopic: wanted.GetDeadLetterTopic(), pathless: true,
	}, st)
	if err != nil {
		return err
	}
	if s.channel != nil { // a subscription of the app to this topic, now or later, and the stream get the events both
		d.group += "-stream"
	}
	err = d.begin(ctx)
	if err == nil {
		err = opened.SendMsg(&daprpb.SubscribeTopicEventsResponse{Response: &daprpb.SubscribeTopicEventsResponse_InitialResponse{
			InitialResponse: &daprpb.SubscribeTopicEventsResponseInitial{},
		}})
	}
	if err != nil {
		return errors.Join(err, d.end(ctx))
	}
	s.mu.Lock()
	s.streams = append(s.streams, d)
	s.mu.Unlock()
	heard := make(chan error, 1)
	go func() { heard <- st.hear() }()
	go st.send() // the first answer is out, and comes before the first event
	select {
	case err = <-heard:
	case <-s.stopping:
		err = status.Error(codes.Unavailable, "the node stops")
	}
	gone() // events that wait for an answer go back
	s.mu.Lock()
	s.streams = slices.DeleteFunc(s.streams, func(other *delivery) bool { return other == d })
	s.mu.Unlock()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.AppTimeout)
	defer cancel()
	return errors.Join(err, d.end(ending))
}

// send sends events until the stream is closed.
func (st *stream) send() {
	for {
		select {
		case next := <-st.out:
			next.sent <- st.SendMsg(next.event)
		case <-st.closed:
			return
		}
	}
}

// hear reads what the app says until it closes the stream.
func (st *stream) hear() error {
	for {
		said := new(daprpb.SubscribeTopicEventsRequest)
		err := st.RecvMsg(said)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case said.GetEventProcessed() == nil:
			return status.Error(codes.InvalidArgument, "a stream has one initial request")
		}
		st.mu.Lock()
		answer := st.waiting[said.GetEventProcessed().GetId()]
		delete(st.waiting, said.GetEventProcessed().GetId())
		st.mu.Unlock()
		if answer != nil {
			answer <- said.GetEventProcessed().GetStatus().GetStatus()
		}
	}
}

// deliver sends the event, and waits for what the app says. An event that it has not answered when it goes was not tried.
func (st *stream) deliver(ctx context.Context, d *delivery, path string, r *bus.Received, e event) (verdict, error) {
	one := d.topicEvent(path, r, e)
	answer := make(chan daprpb.TopicEventResponse_Status, 1)
	st.mu.Lock()
	if _, twice := st.waiting[one.GetId()]; twice {
		st.mu.Unlock()
		return retry, fmt.Errorf("%w with this event now: one with the same id is with it", errUnreached)
	}
	st.waiting[one.GetId()] = answer
	st.mu.Unlock()
	defer func() {
		st.mu.Lock()
		defer st.mu.Unlock()
		if st.waiting[one.GetId()] == answer {
			delete(st.waiting, one.GetId())
		}
	}()
	next := sending{&daprpb.SubscribeTopicEventsResponse{Response: &daprpb.SubscribeTopicEventsResponse_EventMessage{EventMessage: one}}, make(chan error, 1)}
	select {
	case st.out <- next:
	case <-st.closed:
		return retry, fmt.Errorf("%w: it has closed the stream", errUnreached)
	case <-ctx.Done():
		return retry, fmt.Errorf("%w: it does not read what came before on the stream: %w", errUnreached, ctx.Err())
	}
	for sent := next.sent; ; sent = nil {
		select {
		case err := <-sent:
			if err != nil {
				return retry, fmt.Errorf("%w: %w", errUnreached, err)
			}
		case said := <-answer:
			return verdictOf(said)
		case <-st.closed:
			return retry, fmt.Errorf("%w: it has closed the stream", errUnreached)
		case <-ctx.Done():
			return retry, fmt.Errorf("the app did not answer: %w", ctx.Err())
		}
	}
}
