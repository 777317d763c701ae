package facade

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcmeta "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/bannou-mesh/bannou/services/facade/internal/daprpb"
)

// invokeApp calls the app over the gRPC API.
func invokeApp(ctx context.Context, conn *grpc.ClientConn, method string, options ...grpc.CallOption) (*daprpb.InvokeResponse, error) {
	answer := new(daprpb.InvokeResponse)
	err := conn.Invoke(ctx, "/"+daprService+"/InvokeService", &daprpb.InvokeServiceRequest{Id: "app", Message: &daprpb.InvokeRequest{Method: method}}, answer, options...)
	return answer, err
}

// An answer that the app breaks off is an error, not a shorter answer; one that has no end ends at the limit.
func TestGRPCAnswersThatAreNotWhole(t *testing.T) {
	s, _ := newService(t, Config{MaxBodyBytes: 1 << 20}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/broken":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "the first half")
		case "/endless":
			for r.Context().Err() == nil {
				_, _ = w.Write(make([]byte, 64<<10))
			}
		default:
			noSubscriptions(w, r)
		}
	}, nil)
	conn := dial(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	answer, err := invokeApp(ctx, conn, "broken")
	require.Equal(t, codes.Internal, status.Code(err), string(answer.GetData().GetValue()))
	require.ErrorContains(t, err, "broke off")
	_, err = invokeApp(ctx, conn, "endless")
	require.Equal(t, codes.Internal, status.Code(err))
	require.ErrorContains(t, err, "more than 1048576 bytes")
}

// What gRPC has no room for, such as letters beyond ASCII in a header, does not keep the rest from going on.
func TestHeadersThatGRPCHasNot(t *testing.T) {
	s, _ := newService(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X-Name"], w.Header()["X-Plain"] = []string{"Änne"}, []string{"plain"}
		noSubscriptions(w, r)
	}, nil)
	var head grpcmeta.MD
	_, err := invokeApp(t.Context(), dial(t, s), "work", grpc.Header(&head))
	require.NoError(t, err)
	require.Equal(t, []string{"200"}, head.Get("dapr-http-status"))
	require.Equal(t, []string{"plain"}, head.Get("x-plain"))
	require.Empty(t, head.Get("x-name"))

	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	app := grpc.NewServer()
	app.RegisterService(&grpc.ServiceDesc{ServiceName: callbackService, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{
		handling("OnInvoke", func(asked *daprpb.InvokeRequest) (*daprpb.InvokeResponse, error) {
			return &daprpb.InvokeResponse{ContentType: "text/plain", Data: asked.GetData()}, nil
		}),
	}}, app)
	go func() { _ = app.Serve(listener) }()
	t.Cleanup(app.Stop)
	s, _ = newService(t, Config{AppAddress: listener.Addr().String(), AppProtocol: protocolGRPC}, noSubscriptions, nil)
	require.Equal(t, http.StatusOK, statusOf(t, s, "/v1.0/invoke/app/method/work", func(r *http.Request) {
		r.Header["X-Name"], r.Header["X!Odd"] = []string{"Änne"}, []string{"value"}
	}))
}

// Who shows no token has no message read: it is refused before the message has come.
func TestGRPCTokenComesBeforeTheMessage(t *testing.T) {
	s, _ := newService(t, Config{Token: "secret"}, noSubscriptions, nil)
	stream, err := dial(t, s).NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, "/"+daprService+"/SaveState")
	require.NoError(t, err) // and no message is sent
	require.Equal(t, codes.Unauthenticated, status.Code(stream.RecvMsg(&emptypb.Empty{})))
}

// A stream whose app does not read ends all the same, with what it has not got still in the queue.
func TestStreamThatIsNotRead(t *testing.T) {
	s, _ := newService(t, Config{Retries: 3}, noSubscriptions, nil)
	conn := dial(t, s)
	stream := openStream(t.Context(), t, conn, "large")
	large := `{"text":"` + strings.Repeat("x", 1<<20) + `"}`
	for range 3 {
		response, err := http.Post("http://"+s.Addr().String()+"/v1.0/publish/local/large", "application/json", strings.NewReader(large))
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusNoContent, response.StatusCode)
	}
	first := received(t, stream) // and the next ones fill what there is between the two
	require.Len(t, first.GetData(), len(large))
	require.NoError(t, stream.CloseSend())

	stream = openStream(t.Context(), t, dial(t, s), "large")
	for range 3 {
		again := received(t, stream)
		require.Len(t, again.GetData(), len(large))
		answer(t, stream, again.GetId(), daprpb.TopicEventResponse_SUCCESS)
	}
}

// The queue of a stream has one name, whether the app was subscribed to its other topics before it or after it: events that wait are found again.
func TestStreamsQueueHasOneName(t *testing.T) {
	release, heard := make(chan struct{}), make(chan struct{}, 10)
	s, _ := startService(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/dapr/subscribe" {
			<-release
			_, _ = fmt.Fprint(w, `[{"pubsubname":"local","topic":"orders","route":"/orders"}]`)
			return
		}
		heard <- struct{}{}
	})
	stream := openStream(t.Context(), t, dial(t, s), "orders") // before the app has said what it takes
	close(release)
	require.Eventually(t, func() bool { return s.Ready(t.Context()) == nil }, time.Minute, time.Millisecond)
	for range 4 {
		publishTo(t, s, "orders")
	}
	for range 4 {
		answer(t, stream, received(t, stream).GetId(), daprpb.TopicEventResponse_SUCCESS)
	}
	for range 4 {
		select {
		case <-heard:
		case <-time.After(time.Minute):
			t.Fatal("the stream has taken the events of the subscription")
		}
	}
}

// What an app puts into the metadata is text of a bounded length, so that the metadata can be read afterwards.
func TestMetadataStaysReadable(t *testing.T) {
	s, _ := newService(t, Config{Logger: slog.New(slog.DiscardHandler)}, noSubscriptions, nil)
	for text, want := range map[string]int{"plain": http.StatusNoContent, "\xff": http.StatusBadRequest, strings.Repeat("x", maxExtendedBytes+1): http.StatusBadRequest} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+s.Addr().String()+"/v1.0/metadata/word", strings.NewReader(text))
		require.NoError(t, err)
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, want, response.StatusCode)
	}
	found := new(daprpb.GetMetadataResponse)
	require.NoError(t, call(t.Context(), dial(t, s), "GetMetadata", &emptypb.Empty{}, found))
	require.Equal(t, map[string]string{"word": "plain"}, found.GetExtendedMetadata())
}
