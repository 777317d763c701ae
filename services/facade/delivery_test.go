package facade

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// newService starts a facade on a bus of its own for an app that answers with app, and returns it when the app is subscribed.
func newService(t *testing.T, cfg Config, app http.HandlerFunc, before func(*Service)) (*Service, *bus.Bus) {
	t.Helper()
	s, b := startService(t, cfg, app)
	require.Eventually(t, func() bool { return s.Ready(t.Context()) == nil }, time.Minute, time.Millisecond)
	if before != nil {
		before(s)
	}
	return s, b
}

// startService is newService that does not wait.
func startService(t *testing.T, cfg Config, app http.HandlerFunc) (*Service, *bus.Bus) {
	t.Helper()
	server := httptest.NewServer(app)
	driver := memorybus.New(memorybus.Config{})
	b, err := bus.New(driver, bus.Config{AppID: "app"})
	require.NoError(t, err)
	client, err := mesh.NewClient(mesh.ClientConfig{Directory: &mesh.Directory{}})
	require.NoError(t, err)
	cfg.Listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	cfg.GRPCListener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	cfg.AppID, cfg.Client = "app", client
	if cfg.AppAddress == "" {
		cfg.AppAddress = strings.TrimPrefix(server.URL, "http://")
	}
	local := cfg.PubSubs["local"]
	local.Bus = b
	cfg.PubSubs = map[string]PubSub{"local": local}
	cfg.RetryDelay = time.Millisecond
	s, err := New(cfg)
	require.NoError(t, err)
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		server.CloseClientConnections()
		require.NoError(t, s.Stop(ctx))
		require.NoError(t, b.Close(ctx))
		require.NoError(t, driver.Close(ctx))
		server.Close()
	})
	return s, b
}

// publishTo publishes over the API.
func publishTo(t *testing.T, s *Service, topic string) {
	t.Helper()
	response, err := http.Post("http://"+s.Addr().String()+"/v1.0/publish/local/"+topic, "application/json", strings.NewReader(`{"mark":1}`))
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusNoContent, response.StatusCode)
}

// An event that the app never answers goes to the topic of dead letters as one does that it fails at: the time was the event's, not that of the
// dead letter.
func TestHangingAppLeavesADeadLetter(t *testing.T) {
	dead := make(chan string, 100) // one for each time that it comes: an answer may be late
	s, _ := newService(t, Config{AppTimeout: 100 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/dapr/subscribe":
			_, _ = io.WriteString(w, `[{"pubsubname":"local","topic":"slow","route":"/slow","deadLetterTopic":"dead"},{"pubsubname":"local","topic":"dead","route":"/dead"}]`)
		case "/slow":
			<-r.Context().Done()
		case "/dead":
			dead <- string(body)
		}
	}, nil)
	publishTo(t, s, "slow")
	select {
	case body := <-dead:
		require.Contains(t, body, `"topic":"slow"`)
	case <-time.After(time.Minute):
		t.Fatal("nothing came to the topic of dead letters")
	}
}

// A topic of dead letters that nobody is subscribed to loses nothing: the bus keeps the event instead.
func TestDeadLetterTopicWithoutSubscriber(t *testing.T) {
	s, b := newService(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/dapr/subscribe" {
			_, _ = io.WriteString(w, `[{"pubsubname":"local","topic":"failing","route":"/failing","deadLetterTopic":"nobody"}]`)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
	}, nil)
	publishTo(t, s, "failing")
	require.Eventually(t, func() bool {
		list, err := b.ListLetters(t.Context(), bus.LetterFilter{}, bus.LetterPage{})
		return err == nil && len(list.Letters) == 1 && list.Letters[0].Topic == "failing"
	}, time.Minute, time.Millisecond)
}

// A subscription that can never be made is told of, once, where an operator looks.
func TestSubscriptionThatCannotBeMade(t *testing.T) {
	log := make(chan string, 100)
	s, _ := startService(t, Config{Logger: slog.New(slog.NewTextHandler(lines(log), nil))}, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"pubsubname":"nowhere","topic":"x","route":"/x"}]`)
	})
	require.Eventually(t, func() bool { return len(log) > 0 }, time.Minute, time.Millisecond)
	line := <-log
	require.Contains(t, line, "level=WARN")
	require.Contains(t, line, "pubsub nowhere is not found")
	require.Error(t, s.Ready(t.Context()))
}

// A facade is not healthy before its app listens and is subscribed, as daprd; an app that starts asks for the way out alone.
func TestHealthWaitsForTheApp(t *testing.T) {
	var there atomic.Bool
	s, _ := startService(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		if !there.Load() {
			panic(http.ErrAbortHandler) // as if nobody listened
		}
		_, _ = io.WriteString(w, `[{"pubsubname":"local","topic":"orders","route":"/orders"}]`)
	})
	ask := func(path string) (status int, body string) {
		response, err := http.Get("http://" + s.Addr().String() + path)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = response.Body.Close() }()
		said, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(said)
	}
	status, said := ask("/v1.0/healthz")
	require.Equal(t, http.StatusInternalServerError, status)
	require.Contains(t, said, `"errorCode":"ERR_HEALTH_NOT_READY"`)
	require.Contains(t, said, "dapr is not ready: ")
	status, _ = ask("/v1.0/healthz/outbound")
	require.Equal(t, http.StatusNoContent, status)
	there.Store(true)
	require.Eventually(t, func() bool { status, _ := ask("/v1.0/healthz"); return status == http.StatusNoContent }, time.Minute, time.Millisecond)
	require.NoError(t, s.Ready(t.Context()))
}

// lines is a writer that sends each write on.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// An app whose name is not known, as that of a container that is replaced, is away: its events wait, and are not counted as tried.
func TestAppThatCannotBeDialled(t *testing.T) {
	came := make(chan struct{}, 1)
	var failures atomic.Int32
	s, _ := newService(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/dapr/subscribe" {
			_, _ = io.WriteString(w, `[{"pubsubname":"local","topic":"waiting","route":"/waiting"}]`)
			return
		}
		came <- struct{}{}
	}, func(s *Service) {
		s.channel.(*httpChannel).client.CloseIdleConnections()
		dial := new(net.Dialer).DialContext
		s.channel.(*httpChannel).client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			if failures.Add(1) <= 1 {
				return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: address, IsNotFound: true}}
			}
			return dial(ctx, network, address)
		}
	})
	publishTo(t, s, "waiting")
	select {
	case <-came:
	case <-time.After(time.Minute):
		t.Fatal("the event was given up")
	}
	require.NotZero(t, failures.Load())
}
