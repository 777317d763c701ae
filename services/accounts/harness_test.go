package accounts_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/sqliteevents"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/accounts"
	"github.com/bannou-mesh/bannou/services/host"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type object = map[string]any

// node is the accounts service on a host, as a caller sees it, and what the bus hears of it.
type node struct {
	t      testing.TB
	url    string
	client *http.Client
	log    *eventstore.Store

	mu    sync.Mutex
	heard []bus.Event
}

func start(t testing.TB, cfg accounts.Config) *node {
	t.Helper()
	n := &node{t: t, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	driver, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	n.log, err = sqliteevents.Open(t.Context(), driver, eventstore.Config{})
	require.NoError(t, err)
	factory, err := state.NewFactory([]state.StoreConfig{{Name: accounts.ListStore, Backend: "sqlite"}}, []state.Driver{driver}, state.Options{})
	require.NoError(t, err)
	b, err := bus.New(memorybus.New(memorybus.Config{}), bus.Config{})
	require.NoError(t, err)
	hear[events.AccountCreatedEvent](t, n, b, events.TopicAccountCreated)
	hear[events.AccountUpdatedEvent](t, n, b, events.TopicAccountUpdated)
	hear[events.AccountDeletedEvent](t, n, b, events.TopicAccountDeleted)
	cfg.Log, cfg.Factory, cfg.Bus = n.log, factory, b
	service, err := accounts.New(cfg)
	require.NoError(t, err)
	h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	require.NoError(t, h.Add(service))

	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	var busErr, hostErr error
	busCtx, endBus := context.WithCancel(context.Background())
	running.Go(func() { busErr = b.Run(busCtx) })
	hosting := make(chan struct{})
	go func() { hostErr = h.Run(ctx); close(hosting) }()
	<-b.Running()
	select {
	case <-h.Started():
	case <-hosting:
		require.NoError(t, hostErr)
	}
	n.url = "http://" + h.Addr().String()
	t.Cleanup(func() {
		n.client.CloseIdleConnections()
		cancel()
		<-hosting
		endBus()
		running.Wait()
		require.NoError(t, hostErr)
		require.NoError(t, busErr)
		require.NoError(t, factory.Close())
	})
	return n
}

func hear[E any, P interface {
	*E
	bus.Event
}](t testing.TB, n *node, b *bus.Bus, topic string) {
	require.NoError(t, bus.Handle(b, topic, "test", func(_ context.Context, e *E) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.heard = append(n.heard, P(e))
		return nil
	}, bus.SubscriptionOptions{}))
}

// hears waits for so many events, and returns those of one topic after those of another, since the bus promises no order between topics:
// who was created, what was updated, who was deleted.
func (n *node) hears(count int) []bus.Event {
	n.t.Helper()
	var all []bus.Event
	require.Eventually(n.t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		all = append([]bus.Event{}, n.heard...)
		return len(all) >= count
	}, 20*time.Second, time.Millisecond)
	topic := func(e bus.Event) int {
		switch e.(type) {
		case *events.AccountCreatedEvent:
			return 0
		case *events.AccountUpdatedEvent:
			return 1
		default:
			return 2
		}
	}
	slices.SortStableFunc(all, func(a, b bus.Event) int { return topic(a) - topic(b) })
	return all
}

func (n *node) post(path, body string) (int, object) {
	n.t.Helper()
	response, err := n.client.Post(n.url+path, "application/json", bytes.NewReader([]byte(body)))
	require.NoError(n.t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	require.NoError(n.t, err)
	var decoded object
	require.NoError(n.t, json.Unmarshal(answer, &decoded), "%s", answer)
	return response.StatusCode, decoded
}

func (n *node) must(path, body string) object {
	n.t.Helper()
	status, decoded := n.post(path, body)
	require.Equal(n.t, 200, status, "%s %s: %v", path, body, decoded)
	return decoded
}

func (n *node) refused(path, body string, status int, code, member string) {
	n.t.Helper()
	got, decoded := n.post(path, body)
	require.Equal(n.t, []any{status, code, member}, []any{got, decoded["code"], decoded["member"]}, "%s %s: %v", path, body, decoded)
}
