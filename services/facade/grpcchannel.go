package facade

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	grpcmeta "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/facade/internal/daprpb"
)

// grpcChannel speaks gRPC with the app, which serves dapr.proto.runtime.v1.AppCallback.
type grpcChannel struct {
	s    *Service
	conn *grpc.ClientConn
}

func newGRPCChannel(s *Service) (*grpcChannel, error) {
	limit := int(s.cfg.MaxBodyBytes)
	again := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second}
	conn, err := grpc.NewClient("passthrough:///"+s.cfg.AppAddress,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(limit), grpc.MaxCallSendMsgSize(2*limit)), // an event has its envelope too
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: 5 * time.Second}))
	if err != nil {
		return nil, fmt.Errorf("facade: the app's address: %w", err)
	}
	return &grpcChannel{s: s, conn: conn}, nil
}

func (c *grpcChannel) close() { _ = c.conn.Close() }

// call is one call of the app, when somebody listens there.
func (c *grpcChannel) call(ctx context.Context, service, method string, asked, answer proto.Message, options ...grpc.CallOption) error {
	if err := c.reach(ctx); err != nil {
		return err
	}
	if c.s.cfg.AppToken != "" {
		ctx = grpcmeta.AppendToOutgoingContext(ctx, strings.ToLower(headerToken), c.s.cfg.AppToken)
	}
	return c.conn.Invoke(ctx, "/"+service+"/"+method, asked, answer, options...)
}

// reach waits until there is a connection, or the attempt to make one has failed: then nothing was sent.
func (c *grpcChannel) reach(ctx context.Context) error {
	for {
		state := c.conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.Idle:
			c.conn.Connect()
		case connectivity.TransientFailure, connectivity.Shutdown:
			return fmt.Errorf("%w: nobody listens at %s", errUnreached, c.s.cfg.AppAddress)
		case connectivity.Connecting:
		}
		if !c.conn.WaitForStateChange(ctx, state) {
			return fmt.Errorf("%w at %s: %w", errUnreached, c.s.cfg.AppAddress, ctx.Err())
		}
	}
}

// subscriptions is ListTopicSubscriptions of the app. One that has no such method subscribes to nothing.
func (c *grpcChannel) subscriptions(ctx context.Context) ([]Subscription, error) {
	answer := new(daprpb.ListTopicSubscriptionsResponse)
	err := c.call(ctx, callbackService, "ListTopicSubscriptions", &emptypb.Empty{}, answer)
	if status.Code(err) == codes.Unimplemented {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the app does not say what it subscribes to: %w", err)
	}
	list := make([]Subscription, len(answer.GetSubscriptions()))
	for i, one := range answer.GetSubscriptions() {
		list[i] = Subscription{
			PubSub: one.GetPubsubName(), Topic: one.GetTopic(), Metadata: one.GetMetadata(), DeadLetterTopic: one.GetDeadLetterTopic(),
			Default: one.GetRoutes().GetDefault(), Bulk: one.GetBulkSubscribe().GetEnabled(),
		}
		for _, rule := range one.GetRoutes().GetRules() {
			list[i].Rules = append(list[i].Rules, Rule{Match: rule.GetMatch(), Path: rule.GetPath()})
		}
		list[i].pathless = list[i].Default == "" && len(list[i].Rules) == 0
	}
	return list, nil
}

// deliver is OnTopicEvent of the app, or OnBulkTopicEventAlpha1 for a subscription that asks for it.
func (c *grpcChannel) deliver(ctx context.Context, d *delivery, path string, r *bus.Received, e event) (verdict, error) {
	for _, name := range []string{bus.HeaderTraceParent, bus.HeaderTraceState} {
		if value := r.Headers[name]; value != "" {
			ctx = grpcmeta.AppendToOutgoingContext(ctx, strings.ToLower(name), value)
		}
	}
	one := d.topicEvent(path, r, e)
	said := daprpb.TopicEventResponse_SUCCESS
	var err error
	if d.wanted.Bulk {
		answer := new(daprpb.TopicEventBulkResponse)
		if err = c.call(ctx, callbackAlpha, "OnBulkTopicEventAlpha1", bulkEvent(one, r), answer); len(answer.GetStatuses()) > 0 {
			said = answer.GetStatuses()[0].GetStatus()
		}
	} else {
		answer := new(daprpb.TopicEventResponse)
		err = c.call(ctx, callbackService, "OnTopicEvent", one, answer)
		said = answer.GetStatus()
	}
	switch {
	case errors.Is(err, errUnreached):
		return retry, err
	case status.Code(err) == codes.Unimplemented:
		return lost, fmt.Errorf("the app takes no events: %w", err)
	case err != nil:
		return retry, fmt.Errorf("the app failed at the event: %w", err)
	}
	return verdictOf(said)
}

// verdictOf is what an app says of an event in gRPC.
func verdictOf(said daprpb.TopicEventResponse_Status) (verdict, error) {
	switch said {
	case daprpb.TopicEventResponse_SUCCESS:
		return success, nil
	case daprpb.TopicEventResponse_DROP:
		return drop, errors.New("the app said DROP")
	case daprpb.TopicEventResponse_RETRY:
		return retry, errors.New("the app said RETRY")
	}
	return retry, fmt.Errorf("the app said %d, which is none of SUCCESS, RETRY and DROP", said)
}

// invoke is OnInvoke of the app.
func (c *grpcChannel) invoke(w http.ResponseWriter, r *http.Request, method string) {
	path, err := url.PathUnescape(method)
	if err != nil {
		c.s.answerError(w, r, malformed("%s", err))
		return
	}
	body, err := c.s.body(w, r)
	if err != nil {
		c.s.answerError(w, r, err)
		return
	}
	verb := daprpb.HTTPExtension_Verb(daprpb.HTTPExtension_Verb_value[r.Method]) // one that there is not is NONE
	asked := &daprpb.InvokeRequest{
		Method: path, ContentType: r.Header.Get("Content-Type"), Data: &anypb.Any{Value: body},
		HttpExtension: &daprpb.HTTPExtension{Verb: verb, Querystring: r.URL.RawQuery},
	}
	ctx := r.Context()
	for name, values := range r.Header {
		for _, value := range values {
			if passes(name) && fits(name, value) {
				ctx = grpcmeta.AppendToOutgoingContext(ctx, strings.ToLower(name), value)
			}
		}
	}
	answer := new(daprpb.InvokeResponse)
	var head grpcmeta.MD
	if err := c.call(ctx, callbackService, "OnInvoke", asked, answer, grpc.Header(&head)); err != nil {
		st, is := status.FromError(err)
		if !is {
			c.s.answerError(w, r, invokeRefusal(c.s.cfg.AppID, err))
			return
		}
		w.Header().Set(headerStatus, writeStatus(st))
		c.s.answerError(w, r, refuse(httpOfCode(st.Code()), "ERR_DIRECT_INVOKE", "failed to invoke, id: %s, err: %s", c.s.cfg.AppID, st.Message()))
		return
	}
	for name, values := range head {
		if passes(name) {
			w.Header()[http.CanonicalHeaderKey(name)] = values
		}
	}
	if kind := answer.GetContentType(); kind != "" {
		w.Header().Set("Content-Type", kind)
	}
	w.WriteHeader(http.StatusOK)
	_, err = w.Write(answer.GetData().GetValue())
	_ = err // the caller is gone
}
