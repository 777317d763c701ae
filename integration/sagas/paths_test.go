package sagas_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	trips "github.com/bannou-mesh/bannou/integration/sagas"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/sagas"
	"github.com/bannou-mesh/bannou/services/auth"
)

// paths are the ways through the sagas of the suite.
func paths() []path {
	return []path{
		{name: "registration", saga: "account-registration", services: []string{"auth", "accounts", "sagas"},
			quick: point{Operation: "save", N: 4, After: true}, confirmWithin: time.Hour, prepare: newRegistration},
		{name: "registration without its password", saga: "account-registration", services: []string{"sagas", "accounts", "auth"},
			confirmWithin: time.Hour, prepare: newForgotten},
		{name: "deletion", saga: "account-deletion", services: []string{"sagas", "auth", "accounts", "permissions", "game-session"},
			quick: point{Operation: "call", N: 1, After: true}, confirmWithin: time.Hour, prepare: newDeletion},
		{name: "seat that is confirmed", saga: "game-session-join", services: []string{"game-session", "sagas"},
			quick: point{Operation: "save", N: 2, After: true}, confirmWithin: time.Hour, accepts: true, prepare: newJoin},
		{name: "seat that is not", saga: "game-session-join", services: []string{"sagas", "game-session"},
			confirmWithin: 300 * time.Millisecond, prepare: newJoin},
	}
}

const password = "correct horse battery"

type object = map[string]any

// A person is a subject with an address.
type person struct {
	w         *suiteWorld
	email     string
	accountID string
	tokens    struct{ AccessToken, RefreshToken, SessionID string }
}

func newPerson(w *suiteWorld) *person { return &person{w: w, email: uuid.NewString() + "@example.org"} }

// register asks for an account, once. That the address is taken says that an earlier try has made it.
func (p *person) register(ctx context.Context) (done bool) {
	status := p.w.post(ctx, "auth/register", object{"email": p.email, "password": password}, &p.tokens)
	return status == http.StatusOK || status == http.StatusConflict
}

// holder is the account of the address, empty if nobody has it.
func (p *person) holder(ctx context.Context) (accountID string, known bool) {
	var a struct{ AccountID string }
	status := p.w.look(ctx, "accounts/by-email", object{"email": p.email}, &a)
	return a.AccountID, status == http.StatusOK || status == http.StatusNotFound
}

// logsIn tries until a service says yes or no.
func (p *person) logsIn(t *testing.T) (ok bool) {
	require.Eventually(t, func() bool {
		status := p.w.look(t.Context(), "auth/login", object{"email": p.email, "password": password}, new(object))
		ok = status == http.StatusOK
		return ok || status == http.StatusUnauthorized
	}, patience, 10*time.Millisecond)
	return ok
}

// registers makes an account, and waits for its saga.
func (p *person) registers() {
	t := p.w.t
	require.Eventually(t, func() bool { return p.register(t.Context()) }, patience, 10*time.Millisecond)
	require.Eventually(t, func() bool {
		id, _ := p.holder(t.Context())
		p.accountID = id
		return id != "" && p.w.ended(t.Context(), "account-registration", id)
	}, patience, 10*time.Millisecond)
}

// A registration is of an account with a password.
type registration struct{ *person }

func newRegistration(w *suiteWorld) subject { return registration{newPerson(w)} }

func (r registration) begin(ctx context.Context) bool { return r.register(ctx) }

func (r registration) over(ctx context.Context) bool {
	id, known := r.holder(ctx)
	return known && id != "" && r.w.ended(ctx, "account-registration", id)
}

func (r registration) check(t *testing.T, row *trips.SuiteRow) {
	id, _ := r.holder(t.Context())
	i, err := r.w.engine.Get(t.Context(), "account-registration", id)
	require.NoError(t, err)
	if i.Status != sagas.Completed || !r.logsIn(t) {
		row.Half++
	}
	row.Twice += r.w.ids(events.TopicAccountRegistered, id, true) - 1
}

// A forgotten registration is of an account whose password is gone before it was confirmed.
type forgotten struct{ *person }

func newForgotten(w *suiteWorld) subject {
	p := newPerson(w)
	p.accountID = uuid.NewString()
	return forgotten{p}
}

func (f forgotten) begin(ctx context.Context) bool {
	status := f.w.post(ctx, "accounts/register", object{"email": f.email, "accountId": f.accountID, "expectsCredentials": true}, new(object))
	return status == http.StatusOK || status == http.StatusConflict
}

func (f forgotten) over(ctx context.Context) bool {
	return f.w.ended(ctx, "account-registration", f.accountID) && f.w.ended(ctx, "account-deletion", f.accountID)
}

func (f forgotten) check(t *testing.T, row *trips.SuiteRow) {
	if id, _ := f.holder(t.Context()); id != "" {
		row.Half++
	}
	row.Twice += f.w.happened(f.accountID, "deleted") - 1 + f.w.ids(events.TopicAccountRegistered, f.accountID, false)
	next := person{w: f.w, email: f.email}
	next.registers() // the address is anybody's
	if !next.logsIn(t) {
		row.Half++
	}
}

// happened is how often something happened to an account.
func (w *suiteWorld) happened(accountID, what string) (times int) {
	for e, err := range w.suite.log.ReadStream(w.t.Context(), eventstore.StreamID{Category: "accounts.account", ID: accountID}, eventstore.ReadOptions{}) {
		require.NoError(w.t, err)
		if e.Type == what {
			times++
		}
	}
	return times
}

// A deletion is of an account with a session, which has a seat.
type deletion struct {
	*person
	table string
}

func newDeletion(w *suiteWorld) subject {
	p := newPerson(w)
	p.registers()
	require.Eventually(w.t, func() bool { // of a registration whose answer was lost, too
		return p.tokens.SessionID != "" || w.post(w.t.Context(), "auth/login", object{"email": p.email, "password": password}, &p.tokens) == http.StatusOK
	}, patience, 10*time.Millisecond)
	d := deletion{p, newTable(w)}
	for _, step := range []string{"reserve", "seat"} {
		require.Eventually(w.t, func() bool {
			return w.post(w.t.Context(), "game-session/"+step, object{
				"gameSessionId": d.table, "joinId": d.accountID, "sessionId": p.tokens.SessionID, "accountId": d.accountID,
			}, new(object)) == http.StatusOK
		}, patience, 10*time.Millisecond)
	}
	return d
}

func (d deletion) begin(ctx context.Context) bool {
	return d.w.post(ctx, "accounts/delete", object{"accountId": d.accountID}, new(object)) == http.StatusOK
}

func (d deletion) over(ctx context.Context) bool {
	return d.w.ended(ctx, "account-deletion", d.accountID)
}

func (d deletion) check(t *testing.T, row *trips.SuiteRow) {
	w := d.w
	credentials, err := state.Open[object](t.Context(), w.suite.factory, auth.CredentialStore)
	require.NoError(t, err)
	left, err := credentials.Exists(t.Context(), d.accountID)
	require.NoError(t, err)
	if left {
		row.Half++
	}
	for path, c := range map[string]struct {
		body object
		want int
	}{
		"auth/validate":                {object{"accessToken": d.tokens.AccessToken}, http.StatusUnauthorized},
		"auth/refresh":                 {object{"refreshToken": d.tokens.RefreshToken}, http.StatusUnauthorized},
		"accounts/get":                 {object{"accountId": d.accountID}, http.StatusNotFound},
		"permissions/capabilities/get": {object{"sessionId": d.tokens.SessionID}, http.StatusNotFound},
	} {
		status := 0
		require.Eventually(t, func() bool {
			status = w.look(t.Context(), path, c.body, new(object))
			return status > 0 && status < 500
		}, patience, 10*time.Millisecond)
		if status != c.want {
			t.Logf("%s answers %d", path, status)
			row.Half++
		}
	}
	for _, category := range []string{"accounts.account", "saga.account-deletion", "saga.account-registration"} {
		for e, err := range w.suite.log.ReadStream(t.Context(), eventstore.StreamID{Category: category, ID: d.accountID}, eventstore.ReadOptions{}) {
			require.NoError(t, err)
			if strings.Contains(string(e.Data), d.email) {
				row.Half++
			}
		}
	}
	if g := lookAtTable(t, w, d.table); len(g.Players) > 0 || g.Free != 1 {
		t.Logf("the game session is %+v", g)
		row.Half++
	}
	row.Twice += w.happened(d.accountID, "deleted") - 1 + w.happened(d.accountID, "erased") - 1
}

// A join is of a player, into a game session with one seat.
type join struct {
	w              *suiteWorld
	table, session string
	mine           *[]string // the ids of requests that were answered
}

func newJoin(w *suiteWorld) subject {
	return join{w: w, table: newTable(w), session: uuid.NewString(), mine: new([]string)}
}

// newTable makes a game session with one seat.
func newTable(w *suiteWorld) (id string) {
	var g struct{ GameSessionID string }
	require.Eventually(w.t, func() bool {
		return w.post(w.t.Context(), "game-session/create", object{"seats": 1}, &g) == http.StatusOK
	}, patience, 10*time.Millisecond)
	return g.GameSessionID
}

// A tableSeen is a game session as everybody sees it.
type tableSeen struct {
	Free    int
	Players []struct{ SessionID, Status string }
}

func lookAtTable(t *testing.T, w *suiteWorld, id string) (g tableSeen) {
	require.Eventually(t, func() bool {
		return w.look(t.Context(), "game-session/get", object{"gameSessionId": id}, &g) == http.StatusOK
	}, patience, 10*time.Millisecond)
	return g
}

func (j join) begin(ctx context.Context) bool {
	var a struct{ JoinID string }
	if j.w.post(ctx, "game-session/join", object{"gameSessionId": j.table, "sessionId": j.session}, &a) != http.StatusOK {
		return false
	}
	*j.mine = append(*j.mine, a.JoinID)
	return true
}

// over has no instance open: a request whose answer did not come has begun one too.
func (j join) over(ctx context.Context) bool {
	for _, id := range *j.mine {
		if !j.w.ended(ctx, "game-session-join", id) {
			return false
		}
	}
	open, err := j.w.engine.List(ctx, sagas.Filter{Saga: "game-session-join", Status: []sagas.Status{sagas.Running, sagas.Undoing}})
	return err == nil && len(open.Instances) == 0
}

func (j join) check(t *testing.T, row *trips.SuiteRow) {
	g := lookAtTable(t, j.w, j.table)
	joined := slices.ContainsFunc(g.Players, func(p struct{ SessionID, Status string }) bool {
		return p.SessionID == j.session && p.Status == "joined"
	})
	if joined != j.w.path.accepts || len(g.Players) > 1 || joined != (g.Free == 0) || !joined && len(g.Players) > 0 {
		t.Logf("the game session is %+v", g)
		row.Half++
	}
	told := j.w.ids(events.TopicGameSessionPlayerJoined, j.session, joined)
	entered := j.w.ids(events.TopicPermissionsSessionStateChanged, j.session, joined)
	if joined {
		told, entered = told-1, entered-1
	} else {
		for _, id := range *j.mine {
			told += j.w.ids(events.TopicGameSessionJoinEnded, id, true) - 1
		}
	}
	row.Twice += told + entered
}
