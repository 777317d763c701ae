package workflows_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/sagas"
	"github.com/bannou-mesh/bannou/sagas/sagatest"
	"github.com/bannou-mesh/bannou/services/workflows"
)

var errAway = errors.New("the service is away")

// asked is what each step of an instance was asked with, by method or topic.
func asked(t *testing.T, w *sagatest.World, key string) map[string]map[string]any {
	all := map[string]map[string]any{}
	for _, c := range w.Issued(key) {
		var body map[string]any
		require.NoError(t, c.Decode(&body))
		all[c.Method+c.Topic] = body
	}
	return all
}

// Each step says whom it is for, and those that follow the end of an account's sessions, which sessions these were.
func TestStepsSayWhomTheyAreFor(t *testing.T) {
	w := sagatest.New(built(t, workflows.Registration()), sagatest.Chaos{})
	accountsOf(w, "")
	w.Send(events.TopicAccountCreated, &events.AccountCreatedEvent{AccountID: account, ExpectsCredentials: true})
	w.Run()
	require.Equal(t, account, asked(t, w, account)["auth/accounts/confirm"]["accountId"])
	require.Equal(t, account, asked(t, w, account)["account.registered"]["accountId"])

	w = sagatest.New(built(t, workflows.Registration()), sagatest.Chaos{})
	accountsOf(w, "auth/accounts/confirm")
	w.Send(events.TopicAccountCreated, &events.AccountCreatedEvent{AccountID: account, ExpectsCredentials: true})
	w.Run()
	require.Equal(t, map[string]any{"accountId": account, "reason": "its registration was not completed"}, asked(t, w, account)["accounts/delete"])

	w = sagatest.New(built(t, workflows.Deletion(time.Hour, true)), sagatest.Chaos{})
	accountsOf(w, "")
	w.Send(events.TopicAccountDeleted, &events.AccountDeletedEvent{AccountID: account})
	w.Run()
	one := map[string]any{"accountId": account}
	ended := map[string]any{"accountId": account, "sessionIds": []any{"s-1"}}
	require.Equal(t, map[string]map[string]any{
		"auth/accounts/end": one, "game-session/players/remove": ended, "permissions/sessions/end": ended, "accounts/erase": one,
	}, asked(t, w, account))
}

// Each step of a join names the seat and who wants it. What no step of it can do frees the seat, also where that fails for good and is not
// refused, and an answer to a join that there is not is no one's to look at.
func TestStepsOfAJoinNameTheSeat(t *testing.T) {
	const key = "j-1"
	request := events.GameSessionJoinRequestedEvent{JoinID: key, GameSessionID: "g", SessionID: "s", AccountID: account}
	seat := map[string]any{"joinId": key, "gameSessionId": "g", "sessionId": "s", "accountId": account}
	for failing, want := range map[string]sagas.Status{"": sagas.Completed, "invite": sagas.Compensated, "seat": sagas.Compensated} {
		w := sagatest.New(built(t, workflows.Join(30*time.Second)), sagatest.Chaos{})
		for _, step := range []string{"reserve", "invite", "seat", "release"} {
			w.Serve("game-session", "game-session/"+step, func(sagatest.Command) (any, error) {
				if step == failing {
					return nil, errAway
				}
				if step == "invite" {
					w.Send(events.TopicGameSessionJoinAnswered, &events.GameSessionJoinAnsweredEvent{JoinID: key, Accepted: true})
				}
				return nil, nil
			})
		}
		w.Send(events.TopicGameSessionJoinAnswered, &events.GameSessionJoinAnsweredEvent{JoinID: "made up", Accepted: true})
		e := request
		w.Send(events.TopicGameSessionJoinRequested, &e)
		w.Run()
		require.Equal(t, want, w.Instance(key).Status, "%s: %v", failing, w.History(key))
		require.Empty(t, w.Letters())
		steps := asked(t, w, key)
		for _, step := range []string{"reserve", "invite"} {
			require.Equal(t, seat, steps["game-session/"+step], step)
		}
		if want == sagas.Compensated {
			require.Equal(t, seat, steps["game-session/release"])
			continue
		}
		require.Equal(t, seat, steps["game-session/seat"])
		joined := steps[events.TopicGameSessionPlayerJoined]
		for member, value := range seat {
			require.Equal(t, value, joined[member], member)
		}
	}
}
