package gamesession_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// later puts the clock forward.
func (n *node) later(by time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now = n.now.Add(by)
}

func (n *node) time() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now
}

func (n *node) players(table string) []any {
	n.t.Helper()
	return n.must("get", object{"gameSessionId": table})["players"].([]any)
}

// seated is how many have a seat, and many where that is not known: within a condition nothing may end the test.
func (n *node) seated(table string) int {
	_, answer := n.call("get", object{"gameSessionId": table})
	players, known := answer["players"].([]any)
	if !known {
		return 1 << 20
	}
	return len(players)
}

// Where a session may have a seat is remembered for as long as a session lives: others keep a game session from going, and who sits in it for days
// asks for nothing.
func TestWhereaboutsOutliveTheirDay(t *testing.T) {
	n := start(t)
	n.must("reserve", seat(n.table(1), "s-1", "j-1"))
	kept, err := n.store.GetWithETag(t.Context(), "player:s-1")
	require.NoError(t, err)
	require.Greater(t, time.Until(kept.ExpiresAt), 89*24*time.Hour)
}

// A session has seats in 32 game sessions at most, and is told so: of one more it would not be known that it has to be freed. Those that it has left, and that
// are gone, do not count.
func TestSeatsOfASession(t *testing.T) {
	n := start(t)
	var tables []string
	for i := range 32 {
		tables = append(tables, n.table(1))
		n.must("reserve", seat(tables[i], "s-1", fmt.Sprint("j-", i)))
		n.must("seat", seat(tables[i], "s-1", fmt.Sprint("j-", i)))
	}
	one := n.table(1)
	n.refused(http.StatusConflict, "reserve", seat(one, "s-1", "j-33"))
	require.Empty(t, n.players(one))
	n.must("reserve", seat(tables[5], "s-1", "j-5")) // once more, where it is
	n.later(2 * time.Minute)
	n.refused(http.StatusConflict, "reserve", seat(one, "s-1", "j-34"))
	n.must("leave", object{"gameSessionId": tables[7], "sessionId": "s-1"})
	n.must("reserve", seat(one, "s-1", "j-35"))
	n.must("seat", seat(one, "s-1", "j-35"))

	_, err := n.bus.Publish(t.Context(), events.TopicSessionInvalidated, &events.SessionInvalidatedEvent{SessionIDs: []string{"s-1"}})
	require.NoError(t, err)
	for _, table := range append(tables, one) {
		require.Eventually(t, func() bool { return n.seated(table) == 0 }, 20*time.Second, time.Millisecond)
	}
}

// Who asked for a seat a moment ago is not forgotten while it is about to be held, also where many were asked for.
func TestASeatThatIsAboutToBeHeld(t *testing.T) {
	n := start(t)
	for range 32 { // noted, and refused
		table := n.table(1)
		n.must("reserve", seat(table, "other", table))
		n.must("release", seat(table, "other", table))
		n.must("reserve", seat(table, "s-2", table))
		n.refused(http.StatusConflict, "reserve", seat(table, "s-1", "j-"+table))
	}
	one := n.table(1)
	n.refused(http.StatusConflict, "reserve", seat(one, "s-1", "j"))
	n.later(2 * time.Minute)
	n.must("reserve", seat(one, "s-1", "j"))
}

// Nothing of an account is left when it was removed: the seats of the sessions that are named, and of others; what others have stays.
func TestRemovingAPlayer(t *testing.T) {
	n := start(t)
	const account = "0d5e6e8a-8f55-4c05-8f0c-3b9ad4a2a7c1"
	table, second := n.table(4), n.table(4)
	sit := func(table, session, account string) {
		body := seat(table, session, "j-"+table+session)
		body["accountId"] = account
		n.must("reserve", body)
		n.must("seat", body)
	}
	sit(table, "s-1", account)
	sit(second, "s-1", account)
	sit(table, "s-2", "another")
	sit(second, "forgotten", account)
	body := seat(second, "held", "j-held")
	body["accountId"] = account
	n.must("reserve", body)
	for range 2 { // a saga may ask again
		n.must("players/remove", object{"accountId": account, "sessionIds": []string{"s-1", "nowhere"}})
	}
	require.Empty(t, n.players(second))
	left := n.players(table)
	require.Len(t, left, 1)
	require.Equal(t, "s-2", left[0].(object)["sessionId"])
	for _, session := range []string{"s-1", "forgotten"} {
		require.NotZero(t, n.hears(events.TopicGameSessionPlayerLeft, session))
	}
	for _, session := range []string{"s-1", "forgotten", "held"} {
		kept, err := n.store.Get(t.Context(), "player:"+session)
		require.NoError(t, err)
		require.Equal(t, true, kept["ended"], "that it gets no seat any more is all that is left")
	}
	n.refused(http.StatusBadRequest, "players/remove", object{})
	n.refused(http.StatusBadRequest, "players/remove", object{"accountId": account, "sessionIds": make([]string, 1001)})
}

// A session has one seat of a game session, also where there are more; and takes none that it has left, or whose time was over for long. A saga that
// is a little late finds it held.
func TestOneSeatOfEach(t *testing.T) {
	n := start(t)
	table := n.table(3)
	n.must("reserve", seat(table, "s-1", "j-1"))
	n.refused(http.StatusConflict, "reserve", seat(table, "s-1", "j-2"))
	n.later(31 * time.Second)
	n.must("seat", seat(table, "s-1", "j-1"))
	n.refused(http.StatusConflict, "reserve", seat(table, "s-1", "j-2"))

	kept, err := n.store.GetWithETag(t.Context(), table)
	require.NoError(t, err)
	kept.Value["players"].([]any)[0].(object)["status"] = "leaving" // who did it died behind that
	_, err = n.store.TrySaveWith(t.Context(), table, kept.Value, kept.ETag, state.SaveOptions{})
	require.NoError(t, err)
	n.refused(http.StatusConflict, "seat", seat(table, "s-1", "j-1"))
	require.EqualValues(t, 3, n.must("get", object{"gameSessionId": table})["free"])
}
