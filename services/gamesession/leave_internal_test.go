package gamesession

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/gamesession/gamesessionapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// interrupted is a broker that does something else before it takes that a player has left.
type interrupted struct {
	bus.Driver
	before atomic.Pointer[func()]
}

func (i *interrupted) Publish(ctx context.Context, m *bus.Message) error {
	if m.RoutingKey == events.TopicGameSessionPlayerLeft {
		if before := i.before.Swap(nil); before != nil {
			(*before)()
		}
	}
	return i.Driver.Publish(ctx, m)
}

// A seat that a session is given while it leaves all others is freed with them, or when the session ends: it is not forgotten where it sits.
func TestASeatThatIsGivenWhileTheSessionLeaves(t *testing.T) {
	driver, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	factory, err := state.NewFactory([]state.StoreConfig{{Name: Store, Backend: "sqlite"}}, []state.Driver{driver}, state.Options{})
	require.NoError(t, err)
	broker := &interrupted{Driver: memorybus.New(memorybus.Config{})}
	b, err := bus.New(broker, bus.Config{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, b.Close(context.Background()))
		require.NoError(t, broker.Close(context.Background()))
		require.NoError(t, factory.Close())
	})
	s, err := New(Config{Factory: factory, Bus: b})
	require.NoError(t, err)
	const session = "s-1"
	sits := func(table string) {
		request := &seatRequest{GameSessionID: table, SessionID: session, JoinID: uuid.NewString()}
		_, err := s.reserveSeat(t.Context(), request)
		require.NoError(t, err)
		_, err = s.takeSeat(t.Context(), request)
		require.NoError(t, err)
	}
	var tables []string
	for range 2 {
		g, err := s.createGameSession(t.Context(), &gamesessionapi.CreateGameSessionRequest{Seats: 1})
		require.NoError(t, err)
		tables = append(tables, g.GameSessionID)
	}
	sits(tables[0])
	meanwhile := func() { sits(tables[1]) }
	broker.before.Store(&meanwhile)
	free := func() (free []int) {
		for _, id := range tables {
			table, err := s.read(t.Context(), id)
			require.NoError(t, err)
			free = append(free, table.free())
		}
		return free
	}
	require.NoError(t, s.leaveAll(t.Context(), session, time.Now()))
	require.Nil(t, broker.before.Load(), "nothing came between")
	require.Equal(t, []int{1, 0}, free(), "it is the session's own")
	require.NoError(t, s.end(t.Context(), session))
	require.Equal(t, []int{1, 1}, free())

	// A saga that was held up gives an ended session no seat, also where it is held one by who had looked before the session ended.
	late := &seatRequest{GameSessionID: tables[1], SessionID: session, JoinID: uuid.NewString()}
	_, err = s.reserveSeat(t.Context(), late)
	refused := func() {
		p, is := errors.AsType[*problem.Problem](err)
		require.True(t, is, "%v", err)
		require.Equal(t, problem.Conflict, p.Code)
	}
	refused()
	require.NoError(t, s.change(t.Context(), late.GameSessionID, func(t *table) (bool, error) {
		t.Players = append(t.Players, player{JoinID: late.JoinID, SessionID: session, Status: reserved, Since: time.Now(), Until: time.Now().Add(time.Hour)})
		return true, nil
	}))
	_, err = s.takeSeat(t.Context(), late)
	refused()
	require.NoError(t, s.leaveAll(t.Context(), session, time.Now()))
	require.NoError(t, s.end(t.Context(), session), "it is told once more")
	require.Equal(t, []int{1, 1}, free())
	never := uuid.NewString()
	require.NoError(t, s.end(t.Context(), never), "of a session that has asked for nothing yet")
	_, err = s.reserveSeat(t.Context(), &seatRequest{GameSessionID: tables[0], SessionID: never, JoinID: uuid.NewString()})
	refused()
}
