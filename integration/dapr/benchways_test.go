package dapr_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/link"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
)

// A bench has the three ways set up: on each a program that calls, publishes and keeps state, and an app that is called and subscribed. With Dapr and with the
// facade both have a sidecar, or a node, of their own, and the program speaks to its own; with the libraries there is nothing between.
type bench struct {
	t       *testing.T
	servers servers.Set
	called  string // the app-id of the app
	wires   wires

	dapr, facade       string // the URLs of the program's sidecar and of its node
	daprPort, nodeAddr string
	link               *link.Link
	mesh               *mesh.Client
	store              *state.Store[json.RawMessage]

	mu      sync.Mutex
	waiting map[string]chan struct{} // by the mark of an event
}

const benchSubscription = `[{"pubsubname":"broker","topic":"bench-handled","route":"/on/bench"}]`

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{
		t: t, servers: servers.All(t), waiting: map[string]chan struct{}{},
		called: fmt.Sprintf("called-%d", os.Getpid()), // daprd looks for it by multicast, where others may be
		wires:  wires{open: map[string]*wire{}},
	}
	b.servers.Redis = servers.NewRedis(t, servers.RedisOptions{Fsync: "everysec"}) // as 'make bench' has it: else a save measures the disk
	t.Cleanup(b.wires.close)
	called := b.newApp()
	servers.NewDaprd(t, servers.DaprdOptions{AppID: b.called, AppPort: portOf(t, called), Resources: b.components(b.servers.RabbitMQ.URL), Env: []string{"DAPR_HOST_IP=127.0.0.1"}})
	caller := servers.NewDaprd(t, servers.DaprdOptions{AppID: "caller", Resources: b.components(b.servers.RabbitMQ.URL), Env: []string{"DAPR_HOST_IP=127.0.0.1"}})
	b.dapr, b.daprPort = caller.URL, strconv.Itoa(caller.HTTPPort)

	shared := []string{"--messaging-backend", "rabbitmq", "--messaging-rabbitmq-urls", b.servers.RabbitMQ.URL, "--state-redis-url", b.servers.Redis.URL}
	other := newApp(t, benchSubscription)
	other.elsewhere = called
	newFacade(t, b.components(b.servers.RabbitMQ.URL), other, append(shared, "--dapr-app-id", b.called)...)
	none := newApp(t, "[]")
	node := newFacade(t, b.components(b.servers.RabbitMQ.URL), none, append(shared, "--dapr-app-id", "caller")...)
	b.facade, b.nodeAddr = node.url, strings.TrimPrefix(node.url, "http://")
	b.native()
	b.sinks()
	return b
}

// benchPrefetch is how many events of a subscription are under way on each way.
const benchPrefetch = 100

// components are those that a fair comparison has: durable queues, messages that are kept, confirmed publishing.
func (b *bench) components(brokerURL string) []string {
	broker := "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: broker\nspec:\n  type: pubsub.rabbitmq\n  version: v1\n  metadata:\n"
	for _, m := range [][2]string{
		{"connectionString", brokerURL}, {"durable", "true"}, {"deletedWhenUnused", "false"}, {"deliveryMode", "2"}, {"publisherConfirm", "true"},
		{"requeueInFailure", "true"}, {"prefetchCount", strconv.Itoa(benchPrefetch)},
	} {
		broker += "  - name: " + m[0] + "\n    value: " + strconv.Quote(m[1]) + "\n"
	}
	return []string{redisComponent("redis", "state.redis", b.servers.Redis), broker}
}

// newApp starts the app, which answers a call with what it got, and returns its address.
func (b *bench) newApp() string {
	return serveWire(b.t, func(path string, body []byte) (int, string) {
		switch path {
		case "/dapr/subscribe":
			return http.StatusOK, benchSubscription
		case "/on/bench":
			b.handled(body)
			return http.StatusOK, ""
		case "/echo":
			return http.StatusOK, string(body)
		}
		return http.StatusNotFound, ""
	})
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	return number
}

// native sets the libraries up.
func (b *bench) native() {
	t, log := b.t, slog.New(slog.DiscardHandler)
	var err error
	b.link, err = link.Open(link.Servers{Registry: b.servers.Redis.URL, Bus: b.servers.RabbitMQ.URL}, "native", log)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), wait)
		defer cancel()
		require.NoError(t, b.link.Close(ctx))
	})
	directory := mesh.NewDirectory(b.link.Registry, b.link.Feed, mesh.DirectoryConfig{Logger: log})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- directory.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	b.mesh, err = mesh.NewClient(mesh.ClientConfig{Directory: directory, AppID: "native"})
	require.NoError(t, err)
	t.Cleanup(b.mesh.Close)
	require.Eventually(t, func() bool { _, err := b.mesh.Route(b.called); return err == nil }, wait, wait/1000)

	driver, err := redisstate.New(redisstate.Config{URLs: []string{b.servers.Redis.URL}})
	require.NoError(t, err)
	factory, err := state.NewFactory([]state.StoreConfig{{Name: "bench", Backend: "redis"}}, []state.Driver{driver}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, factory.Close()) })
	b.store, err = state.Open[json.RawMessage](t.Context(), factory, "bench")
	require.NoError(t, err)
	_, err = b.link.Bus.SubscribeRaw(t.Context(), "bench-native", func(_ context.Context, r *bus.Received) error {
		b.handled(r.Body)
		return nil
	}, bus.SubscriptionOptions{Group: "native", Durable: true, PrefetchCount: benchPrefetch})
	require.NoError(t, err)
}

// sinks binds a queue for events that nobody handles, on Dapr's exchange and on ours: it keeps the newest thousand.
func (b *bench) sinks() {
	require.NoError(b.t, b.post(0, b.dapr+publish+"broker/bench-sunk", event(0, 0), http.StatusNoContent)) // makes Dapr's exchange
	connection, err := amqp.Dial(b.servers.RabbitMQ.URL)
	require.NoError(b.t, err)
	defer func() { _ = connection.Close() }()
	channel, err := connection.Channel()
	require.NoError(b.t, err)
	for queue, bound := range map[string][2]string{"sunk-dapr": {"#", "bench-sunk"}, "sunk-bannou": {"bench-sunk", "bannou"}} {
		_, err = channel.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-max-length": 1000})
		require.NoError(b.t, err)
		require.NoError(b.t, channel.QueueBind(queue, bound[0], bound[1], false, nil))
	}
}

// event is one with a mark of its own, of 256 bytes.
func event(caller, number int) string {
	return fmt.Sprintf(`{"mark":"~%d/%d~","text":%q}`, caller, number, strings.Repeat("x", 220))
}

// handled tells who waits for an event that it has come.
func (b *bench) handled(body []byte) {
	_, rest, _ := bytes.Cut(body, []byte(`"~`))
	mark, _, _ := bytes.Cut(rest, []byte(`~"`))
	b.mu.Lock()
	come := b.waiting[string(mark)]
	delete(b.waiting, string(mark))
	b.mu.Unlock()
	if come != nil {
		close(come)
	}
}

// untilHandled publishes an event, and waits until it is.
func (b *bench) untilHandled(caller, number int, send func(body string) error) error {
	come := make(chan struct{})
	b.mu.Lock()
	b.waiting[fmt.Sprintf("%d/%d", caller, number)] = come
	b.mu.Unlock()
	if err := send(event(caller, number)); err != nil {
		return err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-come:
		return nil
	case <-timer.C:
		return fmt.Errorf("event %d of caller %d did not come", number, caller)
	}
}

// post is a call of an API, or of the app through it.
func (b *bench) post(caller int, url, body string, status int) error {
	return b.wires.ask(b.t.Context(), caller, http.MethodPost, url, body, status)
}

// check reads an answer to its end, and compares its status.
func check(response *http.Response, err error) func(status int) error {
	return func(status int) error {
		if err != nil {
			return err
		}
		answer, err := io.ReadAll(response.Body)
		if closed := response.Body.Close(); err == nil {
			err = closed
		}
		if err == nil && response.StatusCode != status {
			err = fmt.Errorf("%s: %s", response.Status, answer)
		}
		return err
	}
}
