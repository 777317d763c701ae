package migration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/services/migration"
	"github.com/bannou-mesh/bannou/services/migration/migrationapi"
)

// A node is a migration service over settings that a test changes.
type node struct {
	t         *testing.T
	file      *migration.File
	bus       *bus.Bus
	mu        sync.Mutex // of items, which a service that starts reads in the background
	items     []migration.Item
	found     map[string]migrationapi.MigrationComparison
	wrong     error                     // with the other way
	meanwhile func()                    // happens while an item is looked at; nil: nothing does
	looks     func(ctx context.Context) // happens while a place is looked at; nil: nothing does
	told      chan *events.StoreMigrationEvent
	url       string
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, file: migration.OpenFile(filepath.Join(t.TempDir(), "migration.json")), found: map[string]migrationapi.MigrationComparison{},
		told: make(chan *events.StoreMigrationEvent, 100)}
	n.items = []migration.Item{
		{Kind: "service", Name: "stock", Block: "messaging", Running: "dapr", Rest: "dapr"},
		{Kind: "service", Name: "stock", Block: "mesh", Running: "dapr", Rest: "dapr"},
		{Kind: "store", Name: "accounts", Block: "state", Running: "dapr", Rest: "dapr"},
		{Kind: "store", Name: "pinned", Block: "state", Running: "dapr", Rest: "dapr", Setting: "BANNOU_STATE_BACKEND_PINNED", Chosen: "dapr"},
		{Kind: "store", Name: "moved", Block: "state", Running: "native", Rest: "native"},
	}
	var err error
	n.bus, err = bus.New(memorybus.New(memorybus.Config{}), bus.Config{AppID: "test"})
	require.NoError(t, err)
	require.NoError(t, bus.Handle(n.bus, events.TopicStateMigration, "hear", func(_ context.Context, e *events.StoreMigrationEvent) error {
		n.told <- e
		return nil
	}, bus.SubscriptionOptions{}))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.bus.Run(ctx) }()
	t.Cleanup(func() {
		require.NoError(t, n.bus.Close(context.Background()))
		stop()
		<-ended
	})
	require.Eventually(t, func() bool { return n.bus.Ready(t.Context()) == nil }, 10*time.Second, time.Millisecond)
	return n
}

// start makes the service anew, as a start of the node does.
func (n *node) start() {
	n.t.Helper()
	s, err := migration.New(migration.Config{
		AppID: "shop", InstanceID: "one", File: n.file, Bus: n.bus, Retry: time.Millisecond,
		Items: func(context.Context) []migration.Item {
			n.mu.Lock()
			defer n.mu.Unlock()
			return append([]migration.Item(nil), n.items...)
		},
		Target: func(name string) migration.Item {
			return migration.Item{Kind: "service", Name: name, Block: "mesh", Running: "dapr", Rest: "dapr"}
		},
		Compared: func(item migration.Item, _ time.Duration) (migrationapi.MigrationComparison, bool) {
			if n.meanwhile != nil {
				n.meanwhile()
			}
			c, ok := n.found[item.Name]
			return c, ok
		},
		Check: func(ctx context.Context, _ migration.Item, _ string) error {
			if n.looks != nil {
				n.looks(ctx)
			}
			return n.wrong
		},
		Obstacles: func(context.Context) []string { return []string{"a queue has readers"} },
	})
	require.NoError(n.t, err)
	mux := http.NewServeMux()
	require.NoError(n.t, s.Mount(mux))
	require.NoError(n.t, s.Start(n.t.Context()))
	server := httptest.NewServer(mux)
	n.t.Cleanup(func() {
		server.Close()
		require.NoError(n.t, s.Stop(context.Background()))
	})
	n.url = server.URL
}

// set changes an item.
func (n *node) set(i int, change func(item *migration.Item)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(&n.items[i])
}

// ask posts a request and reads the answer into out; a refusal gives its status and sentence.
func (n *node) ask(path, body string, out any) (status int, detail string) {
	n.t.Helper()
	res, err := http.Post(n.url+path, "application/json", bytes.NewBufferString(body))
	require.NoError(n.t, err)
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		var problem struct{ Detail string }
		require.NoError(n.t, json.NewDecoder(res.Body).Decode(&problem))
		return res.StatusCode, problem.Detail
	}
	require.NoError(n.t, json.NewDecoder(res.Body).Decode(out))
	return res.StatusCode, ""
}

func (n *node) must(path, body string, out any) {
	n.t.Helper()
	status, detail := n.ask(path, body, out)
	require.Equal(n.t, http.StatusOK, status, detail)
}

func (n *node) refused(path, body string, status int, says string) {
	n.t.Helper()
	got, detail := n.ask(path, body, &struct{}{})
	require.Equal(n.t, status, got, detail)
	require.Contains(n.t, detail, says)
}

func (n *node) hear(store string, status events.StoreMigrationStatus) *events.StoreMigrationEvent {
	n.t.Helper()
	select {
	case e := <-n.told:
		require.Equal(n.t, store, e.StoreName)
		require.Equal(n.t, status, e.Status)
		return e
	case <-time.After(30 * time.Second):
		require.FailNow(n.t, "nobody told of it", "%s %s", store, status)
		return nil
	}
}

const switchAccounts = `{"kind":"store","name":"accounts"}`

// A switch that is not known to be safe is refused with the reason; when it is, it is decided for the next start, told, and can be undone.
func TestSwitchAndRollback(t *testing.T) {
	n := newNode(t)
	n.start()
	n.refused("/migration/switch", switchAccounts, http.StatusConflict, "no mirror")
	n.hear("accounts", "started")
	require.Contains(t, n.hear("accounts", "failed").ErrorMessage, "no mirror")
	for _, c := range []struct {
		found migrationapi.MigrationComparison
		says  string
	}{
		{migrationapi.MigrationComparison{With: "redis", Compared: 7}, "only 7"},
		{migrationapi.MigrationComparison{With: "redis", Compared: 700, Different: 2, Reasons: map[string]int64{"value": 2}}, "2 of 700 compared within 0s differed: 2 value"},
		{migrationapi.MigrationComparison{With: "redis", Compared: 700, Failures: 1, LastFailure: "state backend unavailable"}, "state backend unavailable"},
		{migrationapi.MigrationComparison{With: "redis", Compared: 700, Uncarried: 3}, "3 changes were not carried"},
		{migrationapi.MigrationComparison{With: "redis", Compared: 700, Pending: 500}, "500 changes wait to be carried"},
	} {
		n.found["accounts"] = c.found
		n.refused("/migration/switch", switchAccounts, http.StatusConflict, c.says)
		n.hear("accounts", "started")
		n.hear("accounts", "failed")
	}
	n.found["accounts"] = migrationapi.MigrationComparison{With: "redis", Compared: 700}
	var answer migrationapi.SwitchBackendResponse
	n.must("/migration/switch", switchAccounts, &answer)
	require.EqualValues(t, 700, n.hear("accounts", "started").KeysProcessed)
	n.hear("accounts", "progress")
	require.Contains(t, answer.Restart, "restart")
	require.Equal(t, "dapr", answer.Items[0].Running)
	require.Equal(t, "native", answer.Items[0].Next)
	require.False(t, answer.Items[0].Forced)

	n.set(2, func(item *migration.Item) { item.Running = "native" }) // the node has been restarted
	n.start()
	n.hear("accounts", "completed")
	require.Eventually(t, func() bool {
		all, err := n.file.Read()
		return err == nil && all[0].Told
	}, 30*time.Second, time.Millisecond)
	n.start() // it is told once

	n.must("/migration/rollback", switchAccounts, &answer)
	require.Equal(t, "dapr", answer.Items[0].Next)
	n.hear("accounts", "started")
	n.hear("accounts", "progress")
	n.refused("/migration/rollback", `{"kind":"store","name":"moved"}`, http.StatusNotFound, "nothing was decided")
}

// A topic goes by who reads it, whatever was counted of it: natively published it is missing where apps of Dapr look, which is why it goes back.
func TestATopicIsNotJudgedByItsEvents(t *testing.T) {
	n := newNode(t)
	n.items = append(n.items, migration.Item{Kind: "topic", Name: "orders", Block: "messaging", Running: "native", Rest: "native"},
		migration.Item{Kind: "topic", Name: "bills", Block: "messaging", Running: "dapr", Rest: "dapr"})
	n.start()
	n.found["orders"] = migrationapi.MigrationComparison{With: "dapr", Compared: 700, Different: 700, Reasons: map[string]int64{"missing-there": 700}}
	n.found["bills"] = migrationapi.MigrationComparison{With: "dapr"}
	var answer migrationapi.SwitchBackendResponse
	n.must("/migration/switch", `{"kind":"topic","name":"orders","to":"dapr"}`, &answer)
	require.Equal(t, "dapr", answer.Items[0].Next)
	n.must("/migration/switch", `{"kind":"topic","name":"bills"}`, &answer)
	require.Equal(t, "native", answer.Items[0].Next)
	n.wrong = errors.New("2 subscribers of Dapr still read it")
	n.refused("/migration/switch", `{"kind":"topic","name":"bills"}`, http.StatusConflict, "2 subscribers")
}

// A request that is made twice, before or after the restart, leaves what it has decided: neither does a switch go back, nor a rollback forth.
func TestTwiceIsOnce(t *testing.T) {
	n := newNode(t)
	n.start()
	n.found["accounts"] = migrationapi.MigrationComparison{With: "redis", Compared: 700}
	var answer migrationapi.SwitchBackendResponse
	again := func(path, body, running, next string) {
		t.Helper()
		for range 2 {
			n.must(path, body, &answer)
			for i := range answer.Items {
				require.Equal(t, next, answer.Items[i].Next, answer.Items[i].Block)
			}
		}
		for i := range n.items {
			n.set(i, func(item *migration.Item) { item.Running = running }) // as a restart does
		}
	}
	again("/migration/switch", switchAccounts, "native", "native")
	again("/migration/switch", switchAccounts, "native", "native")
	again("/migration/rollback", switchAccounts, "dapr", "dapr")
	again("/migration/rollback", switchAccounts, "dapr", "dapr")

	const stock = `{"kind":"service","name":"stock","force":true}` // one of its blocks is native already
	n.must("/migration/switch", `{"kind":"service","name":"stock","block":"mesh"}`, &answer)
	again("/migration/switch", stock, "native", "native")
	again("/migration/rollback", stock, "dapr", "dapr")
}

// What a setting chooses is not decided otherwise, also not by force, and the setting is named.
func TestSettingsWin(t *testing.T) {
	n := newNode(t)
	n.start()
	n.found["pinned"] = migrationapi.MigrationComparison{With: "redis", Compared: 700}
	n.refused("/migration/switch", `{"kind":"store","name":"pinned","force":true}`, http.StatusConflict, "BANNOU_STATE_BACKEND_PINNED chooses dapr")
	all, err := n.file.Read()
	require.NoError(t, err)
	require.Empty(t, all)

	// One that was decided before the setting was there is shown to be overruled.
	require.NoError(t, n.file.Put(migration.Decision{Kind: "store", Name: "pinned", Block: "state", To: "native", From: "dapr"}))
	var status migrationapi.MigrationStatus
	n.must("/migration/status", `{"kind":"store","name":"pinned"}`, &status)
	require.True(t, status.Items[0].Overruled)
	require.Equal(t, "dapr", status.Items[0].Next)

	n.set(4, func(item *migration.Item) { item.NoDapr = "BANNOU_DAPR_ENABLED is false" })
	n.refused("/migration/switch", `{"kind":"store","name":"moved","to":"dapr","force":true}`, http.StatusConflict, "BANNOU_DAPR_ENABLED is false")
}

// A service has two blocks, which are decided together or apart; calls may go to a target that the node does not know.
func TestServices(t *testing.T) {
	n := newNode(t)
	n.start()
	var answer migrationapi.SwitchBackendResponse
	n.refused("/migration/switch", `{"kind":"service","name":"stock"}`, http.StatusConflict, "messaging.mirrorTopics")
	n.must("/migration/switch", `{"kind":"service","name":"stock","block":"mesh"}`, &answer)
	require.Equal(t, "mesh", answer.Items[0].Block)
	n.must("/migration/switch", `{"kind":"service","name":"stock","force":true,"to":"native"}`, &answer)
	require.Len(t, answer.Items, 2)
	n.must("/migration/rollback", `{"kind":"service","name":"stock"}`, &answer)
	require.Equal(t, []string{"dapr", "dapr"}, []string{answer.Items[0].Next, answer.Items[1].Next}, "the way back is the first one")
	n.must("/migration/switch", `{"kind":"service","name":"elsewhere","block":"mesh"}`, &answer)
	require.Equal(t, "elsewhere", answer.Items[0].Name)
	n.wrong = errors.New("no healthy instance of stock is in the registry")
	n.refused("/migration/switch", `{"kind":"service","name":"stock","block":"mesh"}`, http.StatusConflict, "no healthy instance")
}

// A topic is switched when nobody of Dapr reads it; it is not counted among the services of its name.
func TestTopics(t *testing.T) {
	n := newNode(t)
	n.items = append(n.items, migration.Item{Kind: "topic", Name: "stock", Block: "messaging", Running: "dapr", Rest: "dapr"})
	n.start()
	n.wrong = errors.New("2 subscribers of Dapr still read it")
	n.refused("/migration/switch", `{"kind":"topic","name":"stock"}`, http.StatusConflict, "still read it")
	n.wrong = nil
	var answer migrationapi.SwitchBackendResponse
	n.must("/migration/switch", `{"kind":"topic","name":"stock"}`, &answer)
	require.Len(t, answer.Items, 1)
	require.Equal(t, "native", answer.Items[0].Next)
	var status migrationapi.MigrationStatus
	n.must("/migration/status", `{"kind":"service","name":"stock"}`, &status)
	require.Equal(t, []string{"dapr", "dapr"}, []string{status.Items[0].Next, status.Items[1].Next})
}

func TestPlan(t *testing.T) {
	n := newNode(t)
	n.items[2].Obstacles = []string{"it is encrypted"}
	n.start()
	var plan migrationapi.MigrationPlan
	n.must("/migration/plan", `{}`, &plan)
	require.Equal(t, []string{"a queue has readers"}, plan.Obstacles)
	var steps []string
	for i := range plan.Steps {
		steps = append(steps, plan.Steps[i].Block+" "+plan.Steps[i].Name)
	}
	require.Equal(t, []string{"mesh stock", "state accounts", "state pinned", "messaging stock"}, steps)
	require.True(t, plan.Steps[0].Safe)
	require.Equal(t, "it is encrypted", plan.Steps[1].Why)
	require.Contains(t, plan.Steps[2].Obstacles[0], "BANNOU_STATE_BACKEND_PINNED")
}

// The places of all items are looked at together: several that are away take no longer than one.
func TestPlacesAreLookedAtTogether(t *testing.T) {
	n := newNode(t)
	n.start()
	var arrived, late atomic.Int32
	all := make(chan struct{})
	n.looks = func(ctx context.Context) {
		if arrived.Add(1) == int32(len(n.items)) {
			close(all)
		}
		select {
		case <-all:
		case <-ctx.Done():
			late.Add(1)
		}
	}
	var status migrationapi.MigrationStatus
	n.must("/migration/status", `{}`, &status)
	require.Zero(t, late.Load())
	var names []string
	for i := range status.Items {
		names = append(names, status.Items[i].Name)
	}
	require.Equal(t, []string{"stock", "stock", "accounts", "pinned", "moved"}, names)
}

func TestRefusals(t *testing.T) {
	n := newNode(t)
	n.start()
	for _, c := range []struct {
		path, body string
		status     int
		says       string
	}{
		{"/migration/switch", `{}`, 400, "kind"},
		{"/migration/switch", `{"kind":"store"}`, 400, "name"},
		{"/migration/switch", `{"kind":"planet","name":"x"}`, 400, "planet"},
		{"/migration/switch", `{"kind":"topic","name":"orders"}`, 404, "orders"},
		{"/migration/switch", `{"kind":"topic","name":"orders","block":"mesh"}`, 400, "block"},
		{"/migration/switch", `{"kind":"store","name":"nowhere"}`, 404, "nowhere"},
		{"/migration/switch", `{"kind":"store","name":"accounts","block":"mesh"}`, 400, "block"},
		{"/migration/switch", `{"kind":"store","name":"accounts","to":"redis"}`, 400, "native or dapr"},
		{"/migration/switch", `{"kind":"service","name":"no name!","block":"mesh"}`, 400, "name"},
		{"/migration/status", `{"kind":"planet"}`, 400, "planet"},
		{"/migration/status", `{"seconds":5}`, 400, "10 to 3600"},
		{"/migration/status", `{"name":"nowhere"}`, 404, "nowhere"},
	} {
		n.refused(c.path, c.body, c.status, c.says)
	}
}

// What another process decides while this one looks is what a rollback goes back to.
func TestTheWayBackIsThatOfTheMoment(t *testing.T) {
	n := newNode(t)
	n.start()
	n.meanwhile = func() {
		n.meanwhile = nil
		require.NoError(t, migration.OpenFile(n.file.Path()).Put(migration.Decision{Kind: "store", Name: "accounts", Block: "state", To: "native", From: "dapr"}))
	}
	var answer migrationapi.SwitchBackendResponse
	n.must("/migration/switch", `{"kind":"store","name":"accounts","to":"dapr"}`, &answer)
	require.Equal(t, "dapr", answer.Items[0].Next)
	n.must("/migration/rollback", switchAccounts, &answer)
	require.Equal(t, "native", answer.Items[0].Next)
}
