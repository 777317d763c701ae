package migration_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// decided is the service whose store is moved by decisions, and no flag: that with its state in Dapr's table in MySQL.
const decided = "payments"

// bannou is the command line, built once.
var bannou string

// buildBannou builds it into a folder.
func buildBannou(folder string) error {
	bannou = filepath.Join(folder, "bannou")
	build := exec.Command("go", "build", "-o", bannou, "github.com/bannou-mesh/bannou/cmd/bannou")
	build.Stderr = os.Stderr
	return build.Run()
}

// migrate runs `bannou migrate` against the node of an instance, and returns what it prints and whether it did what it was told.
func migrate(t *testing.T, i *instance, args ...string) (printed string, done bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, bannou, append(append([]string{"migrate"}, args...), "--node", i.url)...).CombinedOutput()
	return string(out), err == nil
}

// decide has the front instance of a service decide where its store or topic goes at the next start: to native when that is safe, and back without
// asking.
func (s *story) decide(m move) {
	s.t.Helper()
	kind, name := "store", storeOf(m.service)
	if m.block == publishing {
		kind, name = "topic", topic
	}
	front := s.load.front[m.service]
	if !m.native {
		out, done := migrate(s.t, front, "rollback", kind, name)
		require.True(s.t, done, out)
		require.Contains(s.t, out, "on dapr from the next start")
		return
	}
	var why string
	require.Eventually(s.t, func() bool {
		is, says, known := safe(s.t, front, kind, name)
		why = says
		return known && (is || strings.Contains(says, "differed")) // which no wait mends
	}, patience, 100*time.Millisecond)
	require.NotContains(s.t, why, "differed")
	out, done := migrate(s.t, front, "switch", kind, name)
	require.True(s.t, done, out)
	require.Contains(s.t, out, "on native from the next start")
}

// safe is what `bannou migrate status` says of an item, and why; not known: it could not be asked.
func safe(t *testing.T, i *instance, kind, name string) (is bool, why string, known bool) {
	t.Helper()
	out, done := migrate(t, i, "status", kind, name, "--json")
	var status struct {
		Items []struct {
			Safe bool   `json:"safe"`
			Why  string `json:"why"`
		} `json:"items"`
	}
	if !done || json.Unmarshal([]byte(out), &status) != nil || len(status.Items) != 1 {
		t.Logf("the status of the %s %s: %s", kind, name, out)
		return false, "", false
	}
	return status.Items[0].Safe, status.Items[0].Why, true
}

// refused tries what nobody may do yet: the topic cannot go native while apps of Dapr read it.
func (s *story) refused() {
	s.t.Helper()
	out, done := migrate(s.t, s.load.front["orders"], "switch", "topic", topic)
	require.False(s.t, done, out)
	require.Contains(s.t, out, "subscribers of Dapr still read it")
}

// The tellings are how often it was told of the store that is moved by decisions, by status.
type tellings struct {
	mu     sync.Mutex
	counts map[events.StoreMigrationStatus]int
}

// listen hears of switched stores as any native program does.
func listen(t *testing.T, url string) *tellings {
	t.Helper()
	driver, err := rabbitbus.New(rabbitbus.Config{URLs: []string{url}})
	require.NoError(t, err)
	b, err := bus.New(driver, bus.Config{AppID: "listener"})
	require.NoError(t, err)
	told := &tellings{counts: map[events.StoreMigrationStatus]int{}}
	require.NoError(t, bus.Handle(b, events.TopicStateMigration, "count", func(_ context.Context, e *events.StoreMigrationEvent) error {
		told.mu.Lock()
		defer told.mu.Unlock()
		if e.StoreName == storeOf(decided) {
			told.counts[e.Status]++
		}
		return nil
	}, bus.SubscriptionOptions{}))
	ended := make(chan error, 1)
	go func() { ended <- b.Run(context.Background()) }()
	<-b.Running()
	t.Cleanup(func() {
		require.NoError(t, b.Close(context.Background()))
		require.NoError(t, <-ended)
		require.NoError(t, driver.Close(context.Background()))
	})
	return told
}

// of is how often it was told of a status.
func (told *tellings) of(status events.StoreMigrationStatus) int {
	told.mu.Lock()
	defer told.mu.Unlock()
	return told.counts[status]
}

// await waits until so many moves were told of whole. That one is done is told until the bus has it, twice where that is late to be known; that it begins
// and was decided is told once each, if the bus takes it at once.
func (told *tellings) await(t *testing.T, moves int) {
	t.Helper()
	require.Eventually(t, func() bool { return told.of(events.StoreMigrationStatusCompleted) >= moves }, patience, 20*time.Millisecond,
		"that the store is elsewhere was not told")
	for _, status := range []events.StoreMigrationStatus{events.StoreMigrationStatusStarted, events.StoreMigrationStatusProgress} {
		require.NotZero(t, told.of(status), "events of %s", status)
		require.LessOrEqual(t, told.of(status), moves, "events of %s", status)
	}
	require.Zero(t, told.of(events.StoreMigrationStatusFailed))
}
