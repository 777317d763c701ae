package workflows

import (
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/sagas"
)

// A Seat is the data of the saga of a player who joins a game session.
type Seat struct {
	JoinID        string `json:"joinId"`
	GameSessionID string `json:"gameSessionId"`
	SessionID     string `json:"sessionId"`
	AccountID     string `json:"accountId,omitempty"`
}

// Join is the saga of a player who asks for a seat, whose key is the id of that request. A seat is held, the player is invited, and has the seat
// by confirming within the time. In any other case the seat is freed again.
func Join(confirmWithin time.Duration) sagas.Definition[Seat] {
	call := func(step string) sagas.Command[Seat] {
		return sagas.Call("game-session", "game-session/"+step, func(s *Seat) any { return s })
	}
	answered := sagas.Correlated(events.TopicGameSessionJoinAnswered, func(e *events.GameSessionJoinAnsweredEvent) string { return e.JoinID })
	return sagas.Definition[Seat]{
		Name: "game-session-join", Retry: sagas.Retry{Attempts: 30, Pause: 500 * time.Millisecond, Timeout: 15 * time.Second},
		Policies: sagas.Policies{Unknown: sagas.Ignore}, // players send answers, and what they make up is no one's to look at
		Start: []sagas.On[Seat]{sagas.When(
			sagas.Correlated(events.TopicGameSessionJoinRequested, func(e *events.GameSessionJoinRequestedEvent) string { return e.JoinID }), "holding-seat",
			func(s *Seat, e *events.GameSessionJoinRequestedEvent) error {
				*s = Seat{JoinID: e.JoinID, GameSessionID: e.GameSessionID, SessionID: e.SessionID, AccountID: e.AccountID}
				return nil
			})},
		States: []sagas.State[Seat]{
			{
				Name: "holding-seat", Do: call("reserve"), Undo: call("release"),
				On: []sagas.On[Seat]{sagas.Answered[Seat, struct{}]("inviting", nil), sagas.Refused[Seat](sagas.Compensating, nil)},
			},
			{
				Name: "inviting", Do: call("invite"), NoUndo: true,
				On: []sagas.On[Seat]{sagas.Answered[Seat, struct{}]("invited", nil), sagas.Failed[Seat](sagas.Compensating, nil)},
			},
			{
				Name: "invited",
				On: []sagas.On[Seat]{
					sagas.Choose(answered, func(_ *Seat, e *events.GameSessionJoinAnsweredEvent) (string, error) {
						if e.Accepted {
							return "seating", nil
						}
						return sagas.Compensating, nil
					}, "seating", sagas.Compensating),
					sagas.After[Seat](confirmWithin, sagas.Compensating, nil),
				},
			},
			{
				Name: "seating", Do: call("seat"), NoUndo: true, // the seat's undo is that of holding it, whatever has become of it
				On: []sagas.On[Seat]{sagas.Answered[Seat, struct{}]("joined", nil), sagas.Refused[Seat](sagas.Compensating, nil), sagas.Failed[Seat](sagas.Compensating, nil)},
			},
			{Name: "joined", End: true, Do: sagas.Publish(events.TopicGameSessionPlayerJoined, func(s *Seat) bus.Event {
				return &events.GameSessionPlayerJoinedEvent{JoinID: s.JoinID, GameSessionID: s.GameSessionID, SessionID: s.SessionID, AccountID: s.AccountID}
			})},
		},
	}
}
