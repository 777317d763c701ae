package facade

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	grpcmeta "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/services/facade/internal/daprpb"
)

// dial is a client of the gRPC API.
func dial(t *testing.T, s *Service) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+s.cfg.GRPCListener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

func call(ctx context.Context, conn *grpc.ClientConn, method string, asked, answer proto.Message) error {
	return conn.Invoke(ctx, "/"+daprService+"/"+method, asked, answer)
}

func noSubscriptions(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "[]") }

// memoryStore keeps values of any bytes, or JSON alone.
func memoryStore(t *testing.T, anyBytes bool) StateStore {
	t.Helper()
	factory, err := state.NewFactory([]state.StoreConfig{{Name: "values", Backend: "memory"}}, []state.Driver{memorystate.New()}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, factory.Close()) })
	return StateStore{Factory: factory, Name: "values", AnyBytes: anyBytes}
}

// The gRPC API asks for the token as the HTTP API does, and the health check does not.
func TestGRPCToken(t *testing.T) {
	s, _ := newService(t, Config{Token: "secret"}, noSubscriptions, nil)
	conn := dial(t, s)
	for _, shown := range [][]string{nil, {"another"}, {"secret", "secret"}} {
		ctx := t.Context()
		for _, token := range shown {
			ctx = grpcmeta.AppendToOutgoingContext(ctx, "dapr-api-token", token)
		}
		require.Equal(t, codes.Unauthenticated, status.Code(call(ctx, conn, "GetMetadata", &emptypb.Empty{}, &daprpb.GetMetadataResponse{})), shown)
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/"+daprService+"/SubscribeTopicEventsAlpha1")
		require.NoError(t, err)
		require.Equal(t, codes.Unauthenticated, status.Code(stream.RecvMsg(&daprpb.SubscribeTopicEventsResponse{})), shown)
	}
	answer := new(daprpb.GetMetadataResponse)
	require.NoError(t, call(grpcmeta.AppendToOutgoingContext(t.Context(), "dapr-api-token", "secret"), conn, "GetMetadata", &emptypb.Empty{}, answer))
	require.Equal(t, "app", answer.GetId())
	health, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, health.GetStatus())
}

// What is too large, or not served, is refused with its code; what takes longer than the caller waits ends then.
func TestGRPCRefusals(t *testing.T) {
	s, _ := newService(t, Config{MaxBodyBytes: 1000, Stores: map[string]StateStore{"values": memoryStore(t, true)}}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
			return
		}
		noSubscriptions(w, r)
	}, nil)
	conn := dial(t, s)
	save := func(value []byte) error {
		return call(t.Context(), conn, "SaveState", &daprpb.SaveStateRequest{StoreName: "values", States: []*daprpb.StateItem{{Key: "a", Value: value}}}, &emptypb.Empty{})
	}
	require.NoError(t, save(make([]byte, 900)))
	require.Equal(t, codes.ResourceExhausted, status.Code(save(make([]byte, 1001))))
	require.Equal(t, codes.Unimplemented, status.Code(call(t.Context(), conn, "GetActorState", &emptypb.Empty{}, &emptypb.Empty{})))
	require.Equal(t, codes.Unimplemented, status.Code(conn.Invoke(t.Context(), "/grpc.reflection.v1.ServerReflection/Info", &emptypb.Empty{}, &emptypb.Empty{})))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := call(ctx, conn, "InvokeService", &daprpb.InvokeServiceRequest{Id: "app", Message: &daprpb.InvokeRequest{Method: "slow"}}, &daprpb.InvokeResponse{})
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
}

// Any bytes come back as they were, from a store that keeps them and from one that keeps JSON alone; over HTTP too.
func TestAnyBytes(t *testing.T) {
	for name, anyBytes := range map[string]bool{"any bytes": true, "JSON alone": false} {
		t.Run(name, func(t *testing.T) {
			s, _ := newService(t, Config{Stores: map[string]StateStore{"values": memoryStore(t, anyBytes)}}, noSubscriptions, nil)
			conn := dial(t, s)
			for _, value := range []string{"text", "\x00\xff", `{"a":1}`, `"text"`, "", `{"$bytes":"dGV4dA==","more":1}`, `{"$bytes":"no base64"}`, `{"$bytes":"dGV4dA=="}`, `{ "$bytes" : "dGV4dA==" }`} {
				require.NoError(t, call(t.Context(), conn, "SaveState", &daprpb.SaveStateRequest{StoreName: "values", States: []*daprpb.StateItem{{Key: "a", Value: []byte(value)}}}, &emptypb.Empty{}))
				found := new(daprpb.GetStateResponse)
				require.NoError(t, call(t.Context(), conn, "GetState", &daprpb.GetStateRequest{StoreName: "values", Key: "a"}, found))
				require.Equal(t, value, string(found.GetData()))
				response, err := http.Get("http://" + s.Addr().String() + "/v1.0/state/values/a")
				require.NoError(t, err)
				body, err := io.ReadAll(response.Body)
				require.NoError(t, err)
				require.NoError(t, response.Body.Close())
				require.Equal(t, value, string(body))
			}
		})
	}
}

// openStream subscribes to a topic, and waits until it is.
func openStream(ctx context.Context, t *testing.T, conn *grpc.ClientConn, topic string) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/"+daprService+"/SubscribeTopicEventsAlpha1")
	require.NoError(t, err)
	require.NoError(t, stream.SendMsg(&daprpb.SubscribeTopicEventsRequest{Request: &daprpb.SubscribeTopicEventsRequest_InitialRequest{
		InitialRequest: &daprpb.SubscribeTopicEventsRequestInitial{PubsubName: "local", Topic: topic},
	}}))
	first := new(daprpb.SubscribeTopicEventsResponse)
	require.NoError(t, stream.RecvMsg(first))
	require.NotNil(t, first.GetInitialResponse())
	return stream
}

func received(t *testing.T, stream grpc.ClientStream) *daprpb.TopicEventRequest {
	t.Helper()
	next := new(daprpb.SubscribeTopicEventsResponse)
	require.NoError(t, stream.RecvMsg(next))
	return next.GetEventMessage()
}

func answer(t *testing.T, stream grpc.ClientStream, id string, said daprpb.TopicEventResponse_Status) {
	t.Helper()
	require.NoError(t, stream.SendMsg(&daprpb.SubscribeTopicEventsRequest{Request: &daprpb.SubscribeTopicEventsRequest_EventProcessed{
		EventProcessed: &daprpb.SubscribeTopicEventsRequestProcessed{Id: id, Status: &daprpb.TopicEventResponse{Status: said}},
	}}))
}

// An event that a stream says RETRY to comes again, and one that it has not answered when it breaks off comes on the next one.
func TestStream(t *testing.T) {
	s, _ := newService(t, Config{Retries: 3}, noSubscriptions, nil)
	conn := dial(t, s)
	ctx, leave := context.WithCancel(t.Context())
	stream := openStream(ctx, t, conn, "orders")
	publishTo(t, s, "orders")
	first := received(t, stream)
	require.Equal(t, `{"mark":1}`, string(first.GetData()))
	answer(t, stream, first.GetId(), daprpb.TopicEventResponse_RETRY)
	again := received(t, stream)
	require.Equal(t, first.GetId(), again.GetId())
	leave()
	stream = openStream(t.Context(), t, conn, "orders")
	again = received(t, stream)
	require.Equal(t, first.GetId(), again.GetId(), "it was not answered")
	answer(t, stream, again.GetId(), daprpb.TopicEventResponse_SUCCESS)
	require.NoError(t, stream.CloseSend())
	require.ErrorIs(t, stream.RecvMsg(new(daprpb.SubscribeTopicEventsResponse)), io.EOF, "the end is no error")
}

// An app that speaks gRPC and is away misses nothing: its events wait, and are not counted as tried.
func TestGRPCAppThatComesLater(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	came := make(chan *daprpb.TopicEventRequest, 10)
	serve := func(l net.Listener) *grpc.Server {
		server := grpc.NewServer()
		server.RegisterService(&grpc.ServiceDesc{ServiceName: callbackService, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{
			handling("ListTopicSubscriptions", func(*emptypb.Empty) (*daprpb.ListTopicSubscriptionsResponse, error) {
				return &daprpb.ListTopicSubscriptionsResponse{Subscriptions: []*daprpb.TopicSubscription{{PubsubName: "local", Topic: "orders"}}}, nil
			}),
			handling("OnTopicEvent", func(e *daprpb.TopicEventRequest) (*daprpb.TopicEventResponse, error) {
				came <- e
				return &daprpb.TopicEventResponse{}, nil
			}),
			handling("OnInvoke", func(asked *daprpb.InvokeRequest) (*daprpb.InvokeResponse, error) {
				return nil, status.Errorf(codes.FailedPrecondition, "not now: %s", asked.GetMethod())
			}),
		}}, server)
		go func() { _ = server.Serve(l) }()
		return server
	}
	app := serve(listener)
	s, _ := newService(t, Config{AppAddress: listener.Addr().String(), AppProtocol: protocolGRPC}, noSubscriptions, nil)
	err = call(t.Context(), dial(t, s), "InvokeService", &daprpb.InvokeServiceRequest{Id: "app", Message: &daprpb.InvokeRequest{Method: "work"}}, &daprpb.InvokeResponse{})
	require.Equal(t, codes.FailedPrecondition, status.Code(err), "the app's own code")
	require.Equal(t, "not now: work", status.Convert(err).Message())

	app.Stop()
	require.Eventually(t, func() bool { // what is sent on a connection that is just ending may have come, and counts
		return s.channel.(*grpcChannel).conn.GetState() != connectivity.Ready
	}, time.Minute, time.Millisecond)
	publishTo(t, s, "orders")
	again, err := new(net.ListenConfig).Listen(t.Context(), "tcp", listener.Addr().String())
	require.NoError(t, err)
	defer serve(again).Stop()
	select {
	case e := <-came:
		require.Equal(t, `{"mark":1}`, string(e.GetData()))
		require.Empty(t, e.GetPath())
	case <-time.After(time.Minute):
		t.Fatal("the event was given up")
	}
}

// handling is a method of an app.
func handling[Req any, Message interface {
	*Req
	proto.Message
}, Resp proto.Message](name string, serve func(Message) (Resp, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		asked := Message(new(Req))
		if err := decode(asked); err != nil {
			return nil, err
		}
		return serve(asked)
	}}
}

// Calls of others come to an app that speaks gRPC as any call in the mesh, over HTTP.
func TestCallsOfOthers(t *testing.T) {
	calls, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	newService(t, Config{Calls: calls, AppToken: "for the app"}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/dapr/subscribe" {
			noSubscriptions(w, r)
			return
		}
		_, _ = fmt.Fprint(w, r.Method, " ", r.URL.RequestURI(), " ", r.Header.Get("Dapr-Api-Token"))
	}, nil)
	response, err := http.Post("http://"+calls.Addr().String()+"/a%2Fb/c?d=1", "text/plain", strings.NewReader("x"))
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, "POST /a%2Fb/c?d=1 for the app", string(body))
}

// Two subscriptions of one topic get each event both; the same one twice gets it once.
func TestTwoSubscriptionsOfOneTopic(t *testing.T) {
	var one, two atomic.Int32
	other := make(chan struct{}, 10)
	s, _ := newService(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dapr/subscribe":
			_, _ = io.WriteString(w, `[{"pubsubname":"local","topic":"orders","route":"/one"},{"pubsubname":"local","topic":"orders","route":"/two"},
				{"pubsubname":"local","topic":"orders","route":"/one"},{"pubsubname":"local","topic":"last","route":"/last"}]`)
		case "/one":
			one.Add(1)
			other <- struct{}{}
		case "/two":
			two.Add(1)
			other <- struct{}{}
		}
	}, nil)
	for range 3 {
		publishTo(t, s, "orders")
	}
	for range 6 {
		select {
		case <-other:
		case <-time.After(time.Minute):
			t.Fatalf("%d came to one and %d to the other", one.Load(), two.Load())
		}
	}
	require.EqualValues(t, 3, one.Load())
	require.EqualValues(t, 3, two.Load())
	require.Len(t, s.metadata().Subscriptions, 3)
}
