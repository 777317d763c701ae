package permissions_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
)

// Among 1 000 sessions, how long it takes from a change to when who listens knows what each session may call from then on: who holds
// connections, by events of many sessions, and who listens for each session alone.
func TestAChangeIsSoonVisible(t *testing.T) {
	w := start(t, 1)
	const sessions = 1000
	ids := make([]string, sessions)
	for i := range ids {
		ids[i] = uuid.NewString()
		w.roles(ids[i], 1, "user")
	}
	registered := func(n int) (holders, all time.Duration) {
		endpoints := []events.PermissionsEndpoint{endpoint(fmt.Sprintf("/game/v%d", n), role("user")), endpoint("/game/admin", role("admin"))}
		for i := range 40 {
			endpoints = append(endpoints, endpoint(fmt.Sprintf("/game/e%d", i), role("user")))
		}
		begin := time.Now()
		w.services("game", endpoints...)
		want := fmt.Sprintf("POST /game/v%d", n)
		for _, id := range ids {
			require.Eventually(t, func() bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				e := w.ofOne[id]
				return e != nil && slices.Contains(e.Capabilities["game"], want)
			}, 60*time.Second, time.Millisecond, "who listens to %s alone is told", events.TopicPermissionsSessionCapabilities)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, id := range ids {
			require.Equal(t, w.ofOne[id].Version, w.latest[id].Version, "both are told of the same version")
			require.Equal(t, w.ofOne[id].Capabilities, w.latest[id].Capabilities)
			holders, all = max(holders, w.at[id].Sub(begin)), max(all, w.oneAt[id].Sub(begin))
		}
		return holders, all
	}
	registered(0)
	const eventsOfOne = 20 // of each part of the index one event to those with the same roles
	w.mu.Lock()
	count, before := w.count, w.ofMany
	w.mu.Unlock()
	registered(100)
	w.mu.Lock()
	require.Equal(t, sessions, w.count-count, "each session has one new version")
	require.Positive(t, w.ofMany-before)
	require.Less(t, w.ofMany-before, eventsOfOne, "sessions that may call the same are told by one event")
	w.mu.Unlock()
	var ofRoles, ofServices, ofEach []time.Duration
	for i := range 100 {
		id := ids[i*7%sessions]
		begin := time.Now()
		w.roles(id, int64(i+2), "user", "admin")
		for !slices.Contains(w.may(id, "game"), "POST /game/admin") {
			<-w.news
		}
		ofRoles = append(ofRoles, time.Since(begin))
	}
	for n := range 10 {
		holders, all := registered(n + 1)
		ofServices, ofEach = append(ofServices, holders), append(ofEach, all)
	}
	slices.Sort(ofRoles)
	slices.Sort(ofServices)
	slices.Sort(ofEach)
	t.Logf("a role of one session of %d: p50 %s, p99 %s; a registration, until holders know of all %d: p50 %s, most %s; until an event of each was heard: p50 %s, most %s",
		sessions, ofRoles[len(ofRoles)/2], ofRoles[len(ofRoles)*99/100], sessions, ofServices[len(ofServices)/2], ofServices[len(ofServices)-1],
		ofEach[len(ofEach)/2], ofEach[len(ofEach)-1])
}
