package state_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	statesvc "github.com/bannou-mesh/bannou/services/state"
)

// absent is a broker that can be taken away.
type absent struct {
	bus.Driver
	away atomic.Bool
}

func (a *absent) Publish(ctx context.Context, m *bus.Message) error {
	if a.away.Load() {
		return bus.ErrUnavailable
	}
	return a.Driver.Publish(ctx, m)
}

func (a *absent) Begin(ctx context.Context, m *bus.Message) func() error {
	return func() error { return a.Publish(ctx, m) }
}

func (a *absent) Ready(ctx context.Context) error {
	if a.away.Load() {
		return bus.ErrUnavailable
	}
	return a.Driver.Ready(ctx)
}

// town is a broker and a file that outlive nodes, and what arrived of state.changed.
type town struct {
	driver  *absent
	bus     *bus.Bus
	path    string
	limits  state.OutboxConfig
	arrived chan arrival
}

type arrival struct {
	bus.Received
	event events.StateChangedEvent
}

func newTown(t *testing.T) *town {
	t.Helper()
	w := &town{
		driver: &absent{Driver: memorybus.New(memorybus.Config{})}, path: filepath.Join(t.TempDir(), "state.db"),
		limits:  state.OutboxConfig{Name: "town state", MaxEntries: 1000, MaxBytes: 1 << 20},
		arrived: make(chan arrival, 10_000),
	}
	var err error
	w.bus, err = bus.New(w.driver, bus.Config{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- w.bus.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ran)
		require.NoError(t, w.driver.Close(ctx))
	})
	_, err = w.bus.SubscribeRaw(t.Context(), events.TopicStateChanged, func(_ context.Context, r *bus.Received) error {
		a := arrival{Received: *r}
		if err := json.Unmarshal(r.Body, &a.event); err != nil {
			return bus.Permanent(err)
		}
		w.arrived <- a
		return nil
	}, bus.SubscriptionOptions{})
	require.NoError(t, err)
	return w
}

// start runs a node with "scores" (sqlite) and "sessions" (memory), whose changes are published, and "quiet" (sqlite).
func (w *town) start(t *testing.T) *node {
	t.Helper()
	n, _ := w.open(t)
	return n
}

func (w *town) open(t *testing.T) (*node, *state.Factory) {
	t.Helper()
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: w.path})
	require.NoError(t, err)
	announcements := statesvc.NewAnnouncements(statesvc.AnnouncementsConfig{Bus: w.bus, Source: "town", Outbox: w.limits})
	factory, err := state.NewFactory([]state.StoreConfig{
		{Name: "scores", Backend: "sqlite", PublishChanges: true}, {Name: "sessions", Backend: "memory", PublishChanges: true},
		{Name: "quiet", Backend: "sqlite"},
	}, []state.Driver{sqlite, memorystate.New()}, announcements.Options(state.Options{}))
	require.NoError(t, err)
	require.NoError(t, announcements.Open(t.Context(), factory))
	require.True(t, announcements.Outboxes())
	service, err := statesvc.New(statesvc.Config{Factory: factory})
	require.NoError(t, err)
	return serve(t, service, factory.Close, announcements), factory
}

func (w *town) next(t *testing.T) arrival {
	t.Helper()
	select {
	case a := <-w.arrived:
		require.Equal(t, "town", a.event.SourceService)
		require.Equal(t, a.MessageID, a.event.EventID)
		require.Equal(t, "StateChangedEvent", a.Type)
		require.WithinDuration(t, time.Now(), a.event.Timestamp, time.Minute)
		return a
	case <-time.After(10 * time.Second):
		t.Fatal("no event arrived")
		return arrival{}
	}
}

func (n *node) ready(t *testing.T) (int, string) {
	t.Helper()
	response, err := n.client.Get(n.url + "/readyz")
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(body)
}

func TestChangesArePublished(t *testing.T) {
	w := newTown(t)
	n := w.start(t)
	for _, store := range []string{"scores", "sessions"} {
		at := `{"storeName":"` + store + `","key":"ada"`
		n.must("/state/save", `{"storeName":"quiet","key":"ada","value":1}`)
		saved := n.must("/state/save", at+`,"value":1}`)
		status, _, _ := n.post("/state/save", at+`,"value":2,"options":{"etag":""}}`)
		require.Equal(t, http.StatusConflict, status)
		n.must("/state/delete", at+`}`)
		n.must("/state/delete", at+`}`)
		first := w.next(t)
		require.Equal(t, store+":ada", first.Headers[bus.HeaderPartitionKey])
		require.Equal(t, events.StateChangedOperationSave, first.event.Operation)
		require.Equal(t, saved["etag"], first.event.ETag)
		require.Equal(t, store, first.event.StoreName)
		require.Equal(t, "ada", first.event.Key)
		second := w.next(t)
		require.Equal(t, events.StateChangedOperationDelete, second.event.Operation)
		require.Empty(t, second.event.ETag)
	}
	require.Empty(t, w.arrived)
}

// While the broker is away stores are written as ever. When it is back every change is told of, those of a key in order,
// also those of a process that is gone.
func TestChangesWaitForTheBroker(t *testing.T) {
	w := newTown(t)
	n := w.start(t)
	w.driver.away.Store(true)
	var want [3][]any
	for i := range 60 {
		saved := n.must("/state/save", fmt.Sprintf(`{"storeName":"scores","key":"k%d","value":%d}`, i%3, i))
		want[i%3] = append(want[i%3], saved["etag"])
	}
	require.Eventually(t, func() bool {
		status, body := n.ready(t)
		return status == http.StatusOK && strings.Contains(body, `"outboxDepth":60`) && strings.Contains(body, "the broker is away: 60 events wait in the outbox on sqlite")
	}, 10*time.Second, 5*time.Millisecond)
	require.Empty(t, w.arrived)
	n.stop()
	second := w.start(t)
	saved := second.must("/state/save", `{"storeName":"scores","key":"k0","value":60}`)
	want[0] = append(want[0], saved["etag"])
	w.driver.away.Store(false)
	var got [3][]any
	for range 61 {
		a := w.next(t)
		k := a.event.Key[1] - '0'
		got[k] = append(got[k], a.event.ETag)
	}
	require.Equal(t, want, got)
	require.Eventually(t, func() bool {
		_, body := second.ready(t)
		return strings.Contains(body, `"outboxDepth":0`) && strings.Contains(body, `"status":"ready"`)
	}, 10*time.Second, 5*time.Millisecond)
	require.Empty(t, w.arrived)
}

// When the outbox is full a change is refused, and not made; what announces nothing goes on.
func TestChangesAreRefusedWhenTheOutboxIsFull(t *testing.T) {
	w := newTown(t)
	w.limits.MaxEntries = 3
	n := w.start(t)
	w.driver.away.Store(true)
	for i := range 3 {
		n.must("/state/save", fmt.Sprintf(`{"storeName":"scores","key":"k","value":%d}`, i))
	}
	for path, body := range map[string]string{
		"save":        `{"storeName":"scores","key":"k","value":9}`,
		"delete":      `{"storeName":"scores","key":"k"}`,
		"bulk-save":   `{"storeName":"scores","items":[{"key":"k","value":9}]}`,
		"bulk-delete": `{"storeName":"scores","keys":["k"]}`,
		"transact":    `{"storeName":"scores","operations":[{"operation":"save","key":"k","value":9}]}`,
	} {
		response, err := n.client.Post(n.url+"/state/"+path, "application/json", strings.NewReader(body))
		require.NoError(t, err)
		answer, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		response.Body.Close()
		require.Equal(t, http.StatusServiceUnavailable, response.StatusCode, "%s: %s", path, answer)
		require.NotEmpty(t, response.Header.Get("Retry-After"))
		require.Contains(t, string(answer), `"code":"unavailable"`)
		require.Contains(t, string(answer), "is full: nothing was changed")
	}
	require.EqualValues(t, 2, n.must("/state/get", `{"storeName":"scores","key":"k"}`)["value"])
	n.must("/state/save", `{"storeName":"quiet","key":"k","value":9}`)
	require.Eventually(t, func() bool {
		status, body := n.ready(t)
		return status == http.StatusOK && strings.Contains(body, "is full: changes of stores with publishChanges are refused")
	}, 10*time.Second, 5*time.Millisecond)

	w.driver.away.Store(false)
	for range 3 {
		w.next(t)
	}
	require.Eventually(t, func() bool {
		status, _, _ := n.post("/state/save", `{"storeName":"scores","key":"k","value":10}`)
		return status == http.StatusOK
	}, 10*time.Second, 5*time.Millisecond)
	w.next(t)
	require.Empty(t, w.arrived)
}

// Two nodes on one file send what both have written: each event once, since nothing failed, and those of a key in order.
func TestChangesOfTwoNodes(t *testing.T) {
	const each = 100
	w := newTown(t)
	first, second := w.start(t), w.start(t)
	want := map[string][]any{}
	for i := range each {
		for k, n := range []*node{first, second} {
			key := fmt.Sprint("k", (i+k)%4)
			want[key] = append(want[key], n.must("/state/save", fmt.Sprintf(`{"storeName":"scores","key":%q,"value":%d}`, key, i))["etag"])
		}
	}
	got := map[string][]any{}
	for range 2 * each {
		a := w.next(t)
		got[a.event.Key] = append(got[a.event.Key], a.event.ETag)
	}
	require.Equal(t, want, got)
	require.Empty(t, w.arrived)
}

// What no broker takes is set aside and in nobody's way, and is tried again by the next process.
func TestChangesThatWereSetAsideAreTriedAgain(t *testing.T) {
	w := newTown(t)
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: w.path})
	require.NoError(t, err)
	box, err := sqlite.OpenOutbox(t.Context(), w.limits)
	require.NoError(t, err)
	add := func(topic string, properties string) {
		require.NoError(t, box.Enqueue(t.Context(), state.OutboxEntry{Key: "scores:k", Topic: topic, Properties: []byte(properties),
			Body: []byte(`{"eventId":"id","timestamp":"` + time.Now().UTC().Format(time.RFC3339) + `","storeName":"scores","key":"k","operation":"save","sourceService":"town"}`)}))
	}
	good := `{"messageId":"id","type":"StateChangedEvent","contentType":"application/json"}`
	add(events.TopicStateChanged, good)
	entries, err := box.Claim(t.Context(), state.OutboxClaim{Owner: "old", Lease: time.Minute, MaxEntries: 1})
	require.NoError(t, err)
	require.NoError(t, box.Park(t.Context(), "old", entries[0].ID, "an earlier version could not read it"))
	add("No Topic", good)
	require.NoError(t, sqlite.Close())
	n := w.start(t)
	require.Equal(t, "k", w.next(t).event.Key)
	n.must("/state/save", `{"storeName":"scores","key":"k","value":1}`)
	w.next(t)
	require.Eventually(t, func() bool {
		status, body := n.ready(t)
		return status == http.StatusOK && strings.Contains(body, `"outboxParked":1`) && strings.Contains(body, "1 events of the outbox on sqlite cannot be sent and were set aside")
	}, 10*time.Second, 5*time.Millisecond)
}

// The trace of the request is that of the event, and a handler that saves is its cause.
func TestChangesKeepTheirOrigin(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	w := newTown(t)
	n, factory := w.open(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.url+"/state/save", strings.NewReader(`{"storeName":"scores","key":"k","value":1}`))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("traceparent", parent)
	response, err := n.client.Do(request)
	require.NoError(t, err)
	response.Body.Close()
	require.Equal(t, parent, w.next(t).Headers[bus.HeaderTraceParent])

	store, err := state.Open[int](t.Context(), factory, "scores")
	require.NoError(t, err)
	_, err = w.bus.SubscribeRaw(t.Context(), "game.won", func(ctx context.Context, _ *bus.Received) error {
		_, err := store.Save(ctx, "{won}", 1)
		return err
	}, bus.SubscriptionOptions{})
	require.NoError(t, err)
	cause, err := w.bus.PublishRaw(t.Context(), "game.won", []byte("{}"), bus.PublishOptions{})
	require.NoError(t, err)
	a := w.next(t)
	require.Equal(t, cause, a.Headers[bus.HeaderCausationID])
	require.Equal(t, cause, a.CorrelationID)
}
