package messaging_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/egress"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/messaging"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type object = map[string]any

// broker is a bus and a store that outlive a node.
type broker struct {
	driver  *frail
	bus     *bus.Bus
	factory *state.Factory
}

// frail is a broker that can be told to remove no queues, and to be away for durable ones or slow with them.
type frail struct {
	bus.Driver
	keepQueues atomic.Bool
	away, slow atomic.Bool
	subscribed chan struct{} // told of each durable queue while it is slow
	opened     func()        // called when a durable queue was opened; nil: nobody
}

// Subscribe, where it is slow, has the queue and does not answer before the caller has given up.
func (f *frail) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) {
	if q.Durable && f.away.Load() {
		return nil, bus.ErrUnavailable
	}
	c, err := f.Driver.Subscribe(ctx, q)
	if q.Durable && f.opened != nil {
		f.opened()
	}
	if q.Durable && f.slow.Load() {
		f.subscribed <- struct{}{}
		<-ctx.Done()
	}
	return c, err
}

func (f *frail) DeleteQueue(ctx context.Context, name string) error {
	if f.keepQueues.Load() {
		return bus.ErrUnavailable
	}
	return f.Driver.DeleteQueue(ctx, name)
}

func newBroker(t testing.TB) *broker {
	t.Helper()
	driver := &frail{Driver: memorybus.New(memorybus.Config{}), subscribed: make(chan struct{}, 1)}
	b, err := bus.New(driver, bus.Config{RetryDelay: 20 * time.Millisecond, ImmediateRetries: -1, RetryMaxAttempts: 2})
	require.NoError(t, err)
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	factory, err := state.NewFactory([]state.StoreConfig{{Name: messaging.SubscriptionStore, Backend: "sqlite"}},
		[]state.Driver{sqlite}, state.Options{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ran)
		require.NoError(t, driver.Close(ctx))
		require.NoError(t, factory.Close())
	})
	return &broker{driver: driver, bus: b, factory: factory}
}

// node is the messaging service on a host, as a caller sees it.
type node struct {
	t      testing.TB
	url    string
	client *http.Client
	stop   func()
}

// start runs a node until the test ends or stop is called.
func (b *broker) start(t testing.TB, change ...func(*messaging.Config)) *node {
	t.Helper()
	policy, err := egress.New(egress.Config{})
	require.NoError(t, err)
	cfg := messaging.Config{Bus: b.bus, Factory: b.factory, Policy: policy, TailHeartbeat: 20 * time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	service, err := messaging.New(cfg)
	require.NoError(t, err)
	h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	require.NoError(t, h.Add(service))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	select {
	case <-h.Started():
	case err := <-done:
		t.Fatal(err)
	}
	n := &node{t: t, url: "http://" + h.Addr().String(), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	n.stop = sync.OnceFunc(func() {
		n.client.CloseIdleConnections()
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(n.stop)
	return n
}

func (n *node) post(path, body string) (int, object) {
	n.t.Helper()
	status, decoded, err := n.ask(path, body)
	require.NoError(n.t, err)
	return status, decoded
}

// ask is post for where a test may not end, as in a condition that is waited for.
func (n *node) ask(path, body string) (status int, answer object, err error) {
	response, err := n.client.Post(n.url+path, "application/json", bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	return response.StatusCode, answer, err
}

// try is ask for its status alone.
func (n *node) try(path, body string) (status int, err error) {
	status, _, err = n.ask(path, body)
	return status, err
}

func (n *node) must(path, body string) object {
	n.t.Helper()
	status, answer := n.post(path, body)
	require.Equal(n.t, 200, status, "%s %s: %v", path, body, answer)
	return answer
}

// call is one call of a callback.
type call struct {
	body   string
	header http.Header
	answer chan int // the status to answer with
}

// callback is a program with a callback; each call waits for a status from the test.
func callback(t testing.TB) (url string, calls chan call) {
	calls = make(chan call, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		c := call{body: string(body), header: r.Header, answer: make(chan int, 1)}
		calls <- c
		select {
		case status := <-c.answer:
			w.WriteHeader(status)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, calls
}

// next waits for a call.
func next(t testing.TB, calls chan call) call {
	t.Helper()
	select {
	case c := <-calls:
		return c
	case <-time.After(10 * time.Second):
		t.Fatal("the callback was not called")
		return call{}
	}
}
