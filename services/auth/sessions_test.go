package auth_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/auth"
)

func TestALoginIsASession(t *testing.T) {
	n := start(t, auth.Config{})
	first := n.register("ada@example.org")
	second := tokensOf(n.must("/auth/login", `{"email":"ADA@example.org","password":"`+password+`","device":"phone"}`))
	require.Equal(t, first.account, second.account)
	require.NotEqual(t, first.session, second.session)
	told := hears(n.world, func(e *events.SessionUpdatedEvent) bool { return e.SessionID == second.session })
	require.Equal(t, []any{second.account, []string{"user"}, events.SessionUpdatedReasonLogin}, []any{told.AccountID, told.Roles, told.Reason})

	validated := n.must("/auth/validate", `{"accessToken":"`+second.access+`"}`)
	require.Equal(t, []any{second.account, second.session, []any{"user"}}, []any{validated["accountId"], validated["sessionId"], validated["roles"]})
	listed := n.must("/auth/sessions/list", `{}`, bearerOf(second)...)["sessions"].([]any)
	require.Len(t, listed, 2)
	require.Equal(t, []any{false, true, "phone"}, []any{listed[0].(object)["current"], listed[1].(object)["current"], listed[1].(object)["device"]})

	require.Equal(t, object{"terminated": true}, n.must("/auth/sessions/terminate", `{"sessionId":"`+first.session+`"}`, bearerOf(second)...))
	require.Equal(t, object{"terminated": false}, n.must("/auth/sessions/terminate", `{"sessionId":"`+first.session+`"}`, bearerOf(second)...))
	n.dead(first)
	n.invalidated(first.session, events.SessionInvalidatedReasonRevoked)
	require.True(t, n.valid(second.access))
	n.refused(409, "conflict", "/auth/register", loginBody("Ada@Example.org", password))
}

// All ways in which sessions end, and what ends: at once, on every node.
func TestSessionsEndEverywhere(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(n *node, own tokens)
		others bool // whether the account's other sessions end too
		reason events.SessionInvalidatedReason
	}{
		"logout":                  {func(n *node, own tokens) { n.must("/auth/logout", ``, bearerOf(own)...) }, false, events.SessionInvalidatedReasonLogout},
		"logout by refresh token": {func(n *node, own tokens) { n.must("/auth/logout", `{"refreshToken":"`+own.refresh+`"}`) }, false, events.SessionInvalidatedReasonLogout},
		"logout of all":           {func(n *node, own tokens) { n.must("/auth/logout", `{"allSessions":true}`, bearerOf(own)...) }, true, events.SessionInvalidatedReasonLogout},
		"new password": {func(n *node, own tokens) {
			n.must("/auth/password/change", `{"currentPassword":"`+password+`","newPassword":"another one"}`, bearerOf(own)...)
		}, true, events.SessionInvalidatedReasonCredentialsChanged},
		"account deleted": {func(n *node, own tokens) {
			n.delete(own.account)
			n.invalidated(own.session, events.SessionInvalidatedReasonAccountDeleted)
		},
			true, events.SessionInvalidatedReasonAccountDeleted},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			here, there := w.start(auth.Config{}), w.start(auth.Config{})
			own := here.register("ada@example.org")
			other := there.login("ada@example.org")
			require.True(t, there.valid(own.access))
			c.end(here, own)
			there.dead(own)
			w.invalidated(own.session, c.reason)
			if c.others {
				there.dead(other)
				w.invalidated(other.session, c.reason)
			} else {
				require.True(t, there.valid(other.access))
			}
		})
	}
}

func TestSessionsExpire(t *testing.T) {
	n := start(t, auth.Config{AccessTTL: time.Minute, IdleTTL: time.Hour, SessionTTL: 150 * time.Minute})
	s := n.register("ada@example.org")
	n.clock.pass(2 * time.Minute)
	require.False(t, n.valid(s.access), "an access token lives for a minute")
	n.clock.pass(57 * time.Minute)
	s = n.refresh(s.refresh)
	n.clock.pass(59 * time.Minute)
	s = n.refresh(s.refresh)
	require.True(t, n.valid(s.access))
	require.Equal(t, n.clock.now().Add(32*time.Minute).UTC().Format(time.RFC3339Nano), n.must("/auth/validate", `{"accessToken":"`+s.access+`"}`)["sessionExpiresAt"])
	n.clock.pass(33 * time.Minute)
	n.dead(s) // it has lived for longer than a session may
	s = n.login("ada@example.org")
	n.clock.pass(61 * time.Minute)
	n.dead(s) // nobody has refreshed it
}

// Whose call it is the gateway tells, where nobody else can; elsewhere what a request says of that is nothing.
func TestTheGatewayTellsWhoCalls(t *testing.T) {
	for _, believed := range []bool{true, false} {
		n := start(t, auth.Config{NodesTell: believed})
		s, other := n.register("ada@example.org"), n.register("eve@example.org")
		of := func(sessionID, accountID string) []string {
			return []string{"Bannou-Session-Id", sessionID, "Bannou-Account-Id", accountID}
		}
		if !believed {
			n.refused(401, "unauthorized", "/auth/sessions/list", `{}`, of(s.session, s.account)...)
			continue
		}
		list, _ := n.must("/auth/sessions/list", `{}`, of(s.session, s.account)...)["sessions"].([]any)
		require.Len(t, list, 1)
		require.Equal(t, true, list[0].(object)["current"])
		n.refused(401, "unauthorized", "/auth/sessions/list", `{}`, of(s.session, other.account)...)
		n.refused(401, "unauthorized", "/auth/sessions/list", `{}`, of("", other.account)...)
		n.refused(401, "unauthorized", "/auth/sessions/list", `{}`, of(s.session, "")...)
		both := append(of(s.session, s.account), bearerOf(other)...)
		require.InDelta(t, 1, n.must("/auth/logout", `{}`, both...)["ended"], 0, "a token decides")
		require.False(t, n.valid(other.access))
		require.InDelta(t, 1, n.must("/auth/logout", `{}`, of(s.session, s.account)...)["ended"], 0)
		n.refused(401, "unauthorized", "/auth/sessions/list", `{}`, of(s.session, s.account)...)
	}
}

func TestTheOldestOfTooManySessionsEnds(t *testing.T) {
	n := start(t, auth.Config{MaxSessions: 3})
	all := []tokens{n.register("ada@example.org")}
	for range 3 {
		n.clock.pass(time.Second)
		all = append(all, n.login("ada@example.org"))
	}
	n.dead(all[0])
	n.invalidated(all[0].session, events.SessionInvalidatedReasonRevoked)
	for _, s := range all[1:] {
		require.True(t, n.valid(s.access))
	}
}

func TestNewRolesReachSessions(t *testing.T) {
	n := start(t, auth.Config{})
	s := n.register("ada@example.org")
	n.setRoles(s.account, "admin", "user")
	told := hears(n.world, func(e *events.SessionUpdatedEvent) bool { return e.Reason == events.SessionUpdatedReasonRolesChanged })
	require.Equal(t, []any{s.session, []string{"admin", "user"}, int64(2)}, []any{told.SessionID, told.Roles, told.Version})
	require.Equal(t, []any{"admin", "user"}, n.must("/auth/validate", `{"accessToken":"`+s.access+`"}`)["roles"])
}

// Many validate, refresh and log in while all sessions are ended, again and again. What was ended stays so, and when the account is
// gone nothing of it comes back.
func TestNothingBringsASessionBack(t *testing.T) {
	n := start(t, auth.Config{MaxSessions: 100, Throttle: auth.Throttle{PerAccount: 10_000, PerAddress: 10_000}})
	n.register("ada@example.org")
	var mu sync.Mutex
	var ended []tokens
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 6 {
				a := n.post("/auth/login", loginBody("ada@example.org", password))
				if a.status != 200 {
					continue // another one changed something at the same time
				}
				own := tokensOf(a.body)
				var busy sync.WaitGroup
				for range 3 {
					busy.Go(func() {
						n.post("/auth/validate", `{"accessToken":"`+own.access+`"}`)
						n.post("/auth/refresh", `{"refreshToken":"`+own.refresh+`"}`)
					})
				}
				left := n.post("/auth/logout", ``, bearerOf(own)...)
				mu.Lock()
				if left.status == 200 {
					ended = append(ended, own)
				}
				mu.Unlock()
				busy.Wait()
			}
		})
	}
	wait.Wait()
	require.NotEmpty(t, ended)
	for _, s := range ended {
		n.dead(s)
	}

	account := ended[0].account
	stop := make(chan struct{})
	var late []tokens
	for range 4 {
		wait.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if a := n.post("/auth/login", loginBody("ada@example.org", password)); a.status == 200 {
					mu.Lock()
					late = append(late, tokensOf(a.body))
					mu.Unlock()
				}
			}
		})
	}
	require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(late) > 2 }, 20*time.Second, time.Millisecond)
	n.delete(account)
	hears(n.world, func(e *events.SessionInvalidatedEvent) bool {
		return e.Reason == events.SessionInvalidatedReasonAccountDeleted
	})
	close(stop)
	wait.Wait()
	for _, s := range late {
		n.dead(s)
	}
}

func TestKeysAreRotated(t *testing.T) {
	w := newWorld(t)
	cfg := auth.Config{KeyRotation: time.Hour, AccessTTL: 10 * time.Minute}
	n, other := w.start(cfg), w.start(cfg)
	s := n.register("ada@example.org")
	kids := n.kids
	before := kids()
	require.Len(t, before, 1)
	w.clock.pass(57 * time.Minute) // the next one is made, and does not sign yet
	require.Eventually(t, func() bool { n.unknownKey(); return len(kids()) == 2 }, 20*time.Second, time.Millisecond)
	s = n.refresh(s.refresh)
	require.Equal(t, before[0], kidOf(t, s.access))
	old := s
	w.clock.pass(5 * time.Minute) // it signs
	s = n.refresh(s.refresh)
	require.Equal(t, kids()[1], kidOf(t, s.access))
	require.True(t, other.valid(s.access), "another node learns of the key")
	require.True(t, n.valid(old.access), "what the old key has signed holds until it expires")
	w.clock.pass(11 * time.Minute)
	require.Eventually(t, func() bool { n.unknownKey(); return len(kids()) == 1 }, 20*time.Second, time.Millisecond)
	require.NotContains(t, kids(), before[0])
}

func TestANewPasswordIsHashedAsToday(t *testing.T) {
	w := newWorld(t)
	n := w.start(auth.Config{})
	n.register("ada@example.org")
	other := w.start(auth.Config{Hashing: auth.Hashing{MemoryKiB: 16, Iterations: 2, Concurrency: 1}})
	before := other.hashes()
	other.login("ada@example.org")
	require.EqualValues(t, 2, other.hashes()-before, "one to compare, one to keep")
	other.login("ada@example.org")
	require.EqualValues(t, 3, other.hashes()-before)
}

func TestAForgottenPassword(t *testing.T) {
	n := start(t, auth.Config{ResetTTL: 10 * time.Minute})
	s := n.register("ada@example.org")
	a := n.post("/auth/password/request-reset", `{"email":"ada@example.org"}`)
	require.Equal(t, "{}", a.raw[:2])
	letter := hears(n.world, func(e *events.PasswordResetRequestedEvent) bool { return e.AccountID == s.account })
	require.Equal(t, "ada@example.org", letter.Email)
	confirm := func(token, password string) string {
		return fmt.Sprintf(`{"token":%q,"newPassword":%q}`, token, password)
	}
	n.refused(400, "invalid_member", "/auth/password/confirm-reset", confirm(letter.Token, "short"))
	n.must("/auth/password/confirm-reset", confirm(letter.Token, "a new password"))
	n.dead(s)
	n.invalidated(s.session, events.SessionInvalidatedReasonCredentialsChanged)
	n.refused(401, "unauthorized", "/auth/password/confirm-reset", confirm(letter.Token, "once more please"))
	n.refused(401, "unauthorized", "/auth/login", loginBody("ada@example.org", password))
	n.must("/auth/login", loginBody("ada@example.org", "a new password"))

	n.must("/auth/password/request-reset", `{"email":"ada@example.org"}`)
	second := hears(n.world, func(e *events.PasswordResetRequestedEvent) bool { return e.Token != letter.Token })
	s = tokensOf(n.must("/auth/login", loginBody("ada@example.org", "a new password")))
	n.must("/auth/password/change", `{"currentPassword":"a new password","newPassword":"the newest one"}`, bearerOf(s)...)
	n.refused(401, "unauthorized", "/auth/password/confirm-reset", confirm(second.Token, "by an old letter"))
}

// Who hears nothing of the account is told that it may be there, and how to go on.
func TestARegistrationWhoseAnswerIsLost(t *testing.T) {
	n := start(t, auth.Config{})
	n.accounts.lost = context.DeadlineExceeded
	a := n.refused(504, "outcome_unknown", "/auth/register", loginBody("ada@example.org", password))
	require.Contains(t, a.body["detail"], "log in")
	n.login("ada@example.org")
	n.accounts.lost = mesh.ErrNoEndpoint
	n.refused(503, "unavailable", "/auth/register", loginBody("bob@example.org", password))
}

// That an account was deleted is believed to the accounts service alone.
func TestAnAccountThatLivesKeepsItsSessions(t *testing.T) {
	n := start(t, auth.Config{})
	s := n.register("ada@example.org")
	_, err := n.bus.Publish(t.Context(), events.TopicAccountDeleted, &events.AccountDeletedEvent{AccountID: s.account})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !n.valid(s.access) || strings.Contains(n.log.String(), "the account lives") }, 20*time.Second, time.Millisecond)
	require.True(t, n.valid(s.access))
	n.login("ada@example.org")
}

// Whoever reads the letters to an address that the account has left has no claim to it.
func TestALetterToAnAddressBefore(t *testing.T) {
	n := start(t, auth.Config{})
	s := n.register("ada@example.org")
	n.must("/auth/password/request-reset", `{"email":"ada@example.org"}`)
	letter := hears(n.world, func(e *events.PasswordResetRequestedEvent) bool { return e.AccountID == s.account })
	n.setEmail(s.account, "ada@example.net")
	n.refused(401, "unauthorized", "/auth/password/confirm-reset", fmt.Sprintf(`{"token":%q,"newPassword":"by an old letter"}`, letter.Token))
	require.True(t, n.valid(s.access))
	n.login("ada@example.net")
}

func TestAWrongCurrentPasswordChangesNothing(t *testing.T) {
	n := start(t, auth.Config{Throttle: auth.Throttle{PerAccount: 3}})
	s := n.register("ada@example.org")
	for range 3 {
		n.refused(403, "forbidden", "/auth/password/change", `{"currentPassword":"guess","newPassword":"another one"}`, bearerOf(s)...)
	}
	n.refused(429, "too_many_requests", "/auth/password/change", `{"currentPassword":"`+password+`","newPassword":"another one"}`, bearerOf(s)...)
	require.True(t, n.valid(s.access))
}

// deaf is a broker that takes nothing while it is.
type deaf struct {
	bus.Driver
	is atomic.Bool
}

func (d *deaf) Publish(ctx context.Context, m *bus.Message) error {
	if d.is.Load() {
		return bus.ErrUnavailable
	}
	return d.Driver.Publish(ctx, m)
}

// What a process that dies has not told of sessions that it ended, another one tells, also if nothing else happens to the account.
func TestWhatADeadProcessDidNotTellIsTold(t *testing.T) {
	w := newWorld(t)
	broker, quiet := w.driver, &deaf{Driver: w.driver}
	w.driver = quiet
	dying := w.start(auth.Config{TellEvery: time.Hour, TellLeftEvery: time.Hour})
	w.driver = broker
	first, second := dying.register("ada@example.org"), dying.register("eve@example.org")
	quiet.is.Store(true)
	dying.must("/auth/logout", ``, bearerOf(first)...)
	heir := w.start(auth.Config{TellLeftEvery: 10 * time.Millisecond})
	heir.must("/auth/logout", ``, bearerOf(second)...)
	w.invalidated(second.session, events.SessionInvalidatedReasonLogout)
	w.clock.pass(time.Minute)
	w.invalidated(first.session, events.SessionInvalidatedReasonLogout)
	told := func(sessionID string) (n int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, e := range w.heard {
			if v, is := e.(*events.SessionInvalidatedEvent); is && contains(v.SessionIDs, sessionID) {
				n++
			}
		}
		return n
	}
	third := heir.login("eve@example.org")
	heir.must("/auth/logout", ``, bearerOf(third)...)
	w.invalidated(third.session, events.SessionInvalidatedReasonLogout)
	w.clock.pass(time.Minute)
	fourth := heir.login("eve@example.org")
	heir.must("/auth/logout", ``, bearerOf(fourth)...)
	w.invalidated(fourth.session, events.SessionInvalidatedReasonLogout)
	require.Equal(t, []int{1, 1, 1}, []int{told(first.session), told(second.session), told(third.session)}, "what was told is not told again")
}
