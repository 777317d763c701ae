package workflows_test

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/sagas"
	"github.com/bannou-mesh/bannou/sagas/sagatest"
	"github.com/bannou-mesh/bannou/services/workflows"
)

var update = flag.Bool("update", false, "write the pictures of docs anew")

func built[S any](t *testing.T, d sagas.Definition[S]) *sagas.Saga {
	saga, err := d.Build()
	require.NoError(t, err)
	return saga
}

// The pictures in docs are those of the definitions: with -update they are written.
func TestPictures(t *testing.T) {
	const docs = "../../docs"
	page, err := os.ReadFile(filepath.Join(docs, "sagas.md"))
	require.NoError(t, err)
	text := string(page)
	for _, saga := range []*sagas.Saga{
		built(t, workflows.Registration()), built(t, workflows.Deletion(30*24*time.Hour, true)), built(t, workflows.Join(30*time.Second)),
	} {
		d := saga.Diagram(nil)
		picture := filepath.Join(docs, saga.Name()+".svg")
		begin, end := "<!-- "+saga.Name()+" -->\n", "<!-- /"+saga.Name()+" -->"
		before, rest, found := strings.Cut(text, begin)
		require.True(t, found, "docs/sagas.md has no place for %s", saga.Name())
		_, after, found := strings.Cut(rest, end)
		require.True(t, found)
		text = before + begin + "![" + saga.Name() + "](" + saga.Name() + ".svg)\n\n```mermaid\n" + d.Mermaid() + "```\n" + end + after
		if *update {
			require.NoError(t, os.WriteFile(picture, []byte(d.SVG()), 0o644))
		}
		drawn, err := os.ReadFile(picture)
		require.NoError(t, err)
		require.Equal(t, d.SVG(), string(drawn), "run: go -C services test ./workflows -run TestPictures -update")
	}
	if *update {
		require.NoError(t, os.WriteFile(filepath.Join(docs, "sagas.md"), []byte(text), 0o644))
		return
	}
	require.Equal(t, string(page), text, "run: go -C services test ./workflows -run TestPictures -update")
}

// accountsOf answers the calls of sagas of accounts. refusing is the method that is refused.
func accountsOf(w *sagatest.World, refusing string) {
	for target, methods := range map[string][]string{
		"auth": {"auth/accounts/confirm", "auth/accounts/end"}, "accounts": {"accounts/delete", "accounts/erase"}, "permissions": {"permissions/sessions/end"},
		"game-session": {"game-session/players/remove"},
	} {
		for _, method := range methods {
			w.Serve(target, method, func(sagatest.Command) (any, error) {
				if method == refusing {
					return nil, refusal(409, "conflict", "accountId")
				}
				return map[string]any{"sessionIds": []string{"s-1"}}, nil
			})
		}
	}
}

// refusal is a problem of a service, about a member of the request; empty: about none.
func refusal(status int, code, member string) *sagas.Refusal {
	body := `{"code":"` + code + `"}`
	if member != "" {
		body = `{"code":"` + code + `","member":"` + member + `"}`
	}
	return &sagas.Refusal{Status: status, Code: code, Detail: "no", Body: jsontext.Value(body)}
}

func calls(w *sagatest.World, key string) (all []string) {
	for _, c := range w.Issued(key) {
		all = append(all, c.Method+c.Topic)
	}
	return all
}

const account = "0d5e6e8a-8f55-4c05-8f0c-3b9ad4a2a7c1"

func TestRegistrationEndsWhole(t *testing.T) {
	for _, c := range []struct {
		name     string
		event    events.AccountCreatedEvent
		refusing string
		status   sagas.Status
		calls    []string
	}{
		{"with a password", events.AccountCreatedEvent{ExpectsCredentials: true}, "", sagas.Completed, []string{"auth/accounts/confirm", "account.registered"}},
		{"without one", events.AccountCreatedEvent{}, "auth/accounts/confirm", sagas.Completed, []string{"account.registered"}},
		{"the password is gone", events.AccountCreatedEvent{ExpectsCredentials: true}, "auth/accounts/confirm", sagas.Compensated,
			[]string{"auth/accounts/confirm", "accounts/delete"}},
	} {
		for seed := range uint64(20) {
			w := sagatest.New(built(t, workflows.Registration()), sagatest.Chaos{Seed: seed, Delay: time.Second, Double: 0.5, Lose: 0.2})
			accountsOf(w, c.refusing)
			for range 8 { // what tells of an account does so until the broker has it
				e := c.event
				e.EventID, e.AccountID, e.Email = "e-1", account, "ada@example.org"
				w.Send(events.TopicAccountCreated, &e)
			}
			w.Run()
			require.Equal(t, c.status, w.Instance(account).Status, "%s, seed %d: %v", c.name, seed, w.History(account))
			require.Equal(t, c.calls, calls(w, account), "%s, seed %d", c.name, seed)
		}
	}
}

// Only auth says that a registration cannot be completed. Whoever refuses on the way there does not cost the account, which a retry completes.
func TestOnlyAuthEndsARegistration(t *testing.T) {
	for name, c := range map[string]struct {
		refusal *sagas.Refusal
		status  sagas.Status
	}{
		"no account":          {refusal(404, "not_found", "accountId"), sagas.Compensated},
		"no password":         {refusal(409, "conflict", "accountId"), sagas.Compensated},
		"nothing at the path": {refusal(404, "not_found", ""), sagas.Parked},
		"no problem":          {&sagas.Refusal{Status: 404, Detail: "404 page not found"}, sagas.Parked},
		"another's conflict":  {refusal(409, "conflict", "key"), sagas.Parked},
		"another's request":   {refusal(400, "missing_member", "email"), sagas.Parked},
	} {
		w := sagatest.New(built(t, workflows.Registration()), sagatest.Chaos{})
		accountsOf(w, "")
		w.Serve("auth", "auth/accounts/confirm", func(sagatest.Command) (any, error) { return nil, c.refusal })
		w.Send(events.TopicAccountCreated, &events.AccountCreatedEvent{AccountID: account, ExpectsCredentials: true})
		w.Run()
		require.Equal(t, c.status, w.Instance(account).Status, name)
		if c.status != sagas.Parked {
			continue
		}
		require.Contains(t, w.Instance(account).Parked.Reason, "refused with "+strconv.Itoa(c.refusal.Status), name)
		require.NotContains(t, calls(w, account), "accounts/delete", name)
		accountsOf(w, "")
		require.Empty(t, w.Ask(account, sagas.KindRetry, sagas.Request{}), name)
		w.Run()
		require.Equal(t, sagas.Completed, w.Instance(account).Status, "%s: %v", name, w.History(account))
	}
}

func TestDeletionEndsOrParks(t *testing.T) {
	steps := []string{"auth/accounts/end", "game-session/players/remove", "permissions/sessions/end", "accounts/erase"}
	for seed := range uint64(20) {
		w := sagatest.New(built(t, workflows.Deletion(time.Hour, true)), sagatest.Chaos{Seed: seed, Delay: time.Second, Double: 0.5, Lose: 0.2})
		accountsOf(w, "")
		for range 8 {
			e := events.AccountDeletedEvent{AccountID: account}
			e.EventID = "e-1"
			w.Send(events.TopicAccountDeleted, &e)
		}
		begin := w.Now()
		w.Run()
		require.Equal(t, sagas.Completed, w.Instance(account).Status, "seed %d: %v", seed, w.History(account))
		require.Equal(t, steps, calls(w, account), "seed %d", seed)
		require.Greater(t, w.Now().Sub(begin), time.Hour, "it is erased after its time, not before")
	}
	for n, refusing := range steps {
		w := sagatest.New(built(t, workflows.Deletion(time.Hour, true)), sagatest.Chaos{})
		accountsOf(w, refusing)
		w.Send(events.TopicAccountDeleted, &events.AccountDeletedEvent{AccountID: account})
		w.Run()
		require.Equal(t, sagas.Parked, w.Instance(account).Status, refusing)
		accountsOf(w, "")
		require.Empty(t, w.Ask(account, sagas.KindRetry, sagas.Request{}))
		w.Run()
		require.Equal(t, sagas.Completed, w.Instance(account).Status, refusing)
		require.Equal(t, steps, calls(w, account), "step %d", n)
	}
	w := sagatest.New(built(t, workflows.Deletion(time.Hour, false)), sagatest.Chaos{})
	accountsOf(w, "game-session/players/remove")
	w.Send(events.TopicAccountDeleted, &events.AccountDeletedEvent{AccountID: account})
	w.Run()
	require.Equal(t, sagas.Completed, w.Instance(account).Status, "there are no game sessions, and nobody is asked for them")
	require.NotContains(t, calls(w, account), "game-session/players/remove")
	w = sagatest.New(built(t, workflows.Deletion(0, true)), sagatest.Chaos{})
	accountsOf(w, "")
	w.Send(events.TopicAccountDeleted, &events.AccountDeletedEvent{AccountID: account})
	w.Run()
	require.Equal(t, "kept-until-asked", w.Instance(account).State)
	w.Send(events.TopicAccountErased, &events.AccountErasedEvent{AccountID: account})
	w.Run()
	require.Equal(t, sagas.Completed, w.Instance(account).Status, "erased by hand")
}

// A deletion goes on, by itself or by a retry, where the settings have changed since it began.
func TestDeletionGoesOnUnderOtherSettings(t *testing.T) {
	for _, c := range []struct {
		name     string
		refusing string
		ask      bool
		until    string // the state in which the settings change
		after    time.Duration
		games    bool
	}{
		{"leaving games, parked", "game-session/players/remove", true, "leaving-games", time.Hour, false},
		{"leaving games", "", false, "leaving-games", time.Hour, false},
		{"its time runs", "", false, "kept", 0, true},
		{"ending sessions", "", false, "ending-sessions", time.Hour, false},
	} {
		w := sagatest.New(built(t, workflows.Deletion(time.Hour, true)), sagatest.Chaos{})
		accountsOf(w, c.refusing)
		w.Send(events.TopicAccountDeleted, &events.AccountDeletedEvent{AccountID: account})
		for w.Instance(account).State != c.until || c.ask && w.Instance(account).Status != sagas.Parked {
			require.True(t, w.Step(), c.name)
		}
		w.Become(built(t, workflows.Deletion(c.after, c.games)))
		if !c.games {
			w.Serve("game-session", "game-session/players/remove", func(sagatest.Command) (any, error) { return nil, errAway })
		}
		if c.ask {
			require.Empty(t, w.Ask(account, sagas.KindRetry, sagas.Request{}), c.name)
		}
		w.Run()
		require.Equal(t, sagas.Completed, w.Instance(account).Status, "%s: %v", c.name, w.History(account))
		require.Contains(t, calls(w, account), "accounts/erase", c.name)
	}
}

func TestAJoinHasASeatOrFreesIt(t *testing.T) {
	const key = "j-1"
	for _, c := range []struct {
		name    string
		answer  *events.GameSessionJoinAnsweredEvent
		refused string
		status  sagas.Status
		free    bool // the seat is freed
	}{
		{"confirmed", &events.GameSessionJoinAnsweredEvent{JoinID: key, Accepted: true}, "", sagas.Completed, false},
		{"declined", &events.GameSessionJoinAnsweredEvent{JoinID: key}, "", sagas.Compensated, true},
		{"not answered", nil, "", sagas.Compensated, true},
		{"full", nil, "game-session/reserve", sagas.Compensated, true},
		{"confirmed too late for the seat", &events.GameSessionJoinAnsweredEvent{JoinID: key, Accepted: true}, "game-session/seat", sagas.Compensated, true},
	} {
		for seed := range uint64(20) {
			w := sagatest.New(built(t, workflows.Join(30*time.Second)), sagatest.Chaos{Seed: seed, Delay: time.Second, Double: 0.5})
			for _, step := range []string{"reserve", "invite", "seat", "release"} {
				w.Serve("game-session", "game-session/"+step, func(sagatest.Command) (any, error) {
					if "game-session/"+step == c.refused {
						return nil, &sagas.Refusal{Status: 409, Detail: "no"}
					}
					if step == "invite" && c.answer != nil {
						answer := *c.answer
						w.Send(events.TopicGameSessionJoinAnswered, &answer)
					}
					return nil, nil
				})
			}
			w.Send(events.TopicGameSessionJoinRequested, &events.GameSessionJoinRequestedEvent{JoinID: key, GameSessionID: "g", SessionID: "s"})
			w.Run()
			require.Equal(t, c.status, w.Instance(key).Status, "%s, seed %d: %v", c.name, seed, w.History(key))
			all := calls(w, key)
			require.Equal(t, c.free, all[len(all)-1] == "game-session/release", "%s, seed %d: %v", c.name, seed, all)
		}
	}
}
