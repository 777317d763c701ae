package auth

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// SessionStore has one value for each account that has sessions, and what else expires: throttles and tokens of letters.
const SessionStore = "auth-sessions"

// memoryOf is how long an account's value is kept when it has no session: longer than anything that was begun before.
const (
	memoryOf       = 10 * time.Minute
	memoryOfUntold = 24 * time.Hour
)

// A session is one login.
type session struct {
	ID          string    `json:"id"`
	Device      string    `json:"device,omitempty"`
	Address     string    `json:"address,omitempty"`
	CreatedAt   time.Time `json:"createdAt"`
	RefreshedAt time.Time `json:"refreshedAt"`
	ExpiresAt   time.Time `json:"expiresAt"`
	Generation  int64     `json:"generation"` // of the password that it began with
	Refresh     chain     `json:"refresh"`
}

// A record is all that is known of an account's sessions. Roles and generation are the newest that anybody has seen here, so that
// who comes late with older ones is told.
type record struct {
	Roles      []string  `json:"roles,omitempty"`
	Version    int64     `json:"version,omitempty"`    // of the account that the roles are from
	Generation int64     `json:"generation,omitempty"` // of the password
	Deleted    bool      `json:"deleted,omitempty"`    // the account
	Ended      []string  `json:"ended,omitempty"`      // the sessions that it had when it was deleted
	Sessions   []session `json:"sessions,omitempty"`
	Untold     []ending  `json:"untold,omitempty"`
}

// An ending is of sessions that have ended, and of which the bus has not heard yet.
type ending struct {
	SessionIDs []string                        `json:"sessionIds"`
	Reason     events.SessionInvalidatedReason `json:"reason"`
}

// What a change of a record may find.
var (
	errNoSession = errors.New("the session has ended")
	errStale     = errors.New("the password was changed meanwhile")
)

// sessions keep records.
type sessions struct {
	factory *state.Factory
	now     func() time.Time
}

func (s sessions) open(ctx context.Context) (*state.Store[record], error) {
	return state.Open[record](ctx, s.factory, SessionStore)
}

func recordKey(accountID string) string { return "account:" + accountID }

// read returns the record of an account without those sessions whose time is over. It writes nothing.
func (s sessions) read(ctx context.Context, accountID string) (record, error) {
	store, err := s.open(ctx)
	if err != nil {
		return record{}, err
	}
	r, err := store.Get(ctx, recordKey(accountID))
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return record{}, err
	}
	r.expire(s.now())
	return r, nil
}

// change changes the record of an account in one step.
func (s sessions) change(ctx context.Context, accountID string, change func(r *record) (write bool, err error)) error {
	store, err := s.open(ctx)
	if err != nil {
		return err
	}
	return swap(ctx, store, recordKey(accountID), func(r *record) (bool, time.Duration, error) {
		now := s.now()
		r.expire(now)
		write, err := change(r)
		return write, r.lives(now), err
	})
}

// expire takes out sessions whose time is over.
func (r *record) expire(now time.Time) {
	r.Sessions = slices.DeleteFunc(r.Sessions, func(s session) bool { return !now.Before(s.ExpiresAt) })
}

// lives is how long the record is kept.
func (r *record) lives(now time.Time) time.Duration {
	lives := memoryOf
	if len(r.Untold) > 0 {
		lives = memoryOfUntold
	}
	for _, s := range r.Sessions {
		lives = max(lives, s.ExpiresAt.Sub(now))
	}
	return lives
}

// find returns the session of that id, nil if there is none.
func (r *record) find(sessionID string) *session {
	for i := range r.Sessions {
		if r.Sessions[i].ID == sessionID {
			return &r.Sessions[i]
		}
	}
	return nil
}

// see takes the account's roles, unless newer ones were seen.
func (r *record) see(a Account) {
	if a.Version >= r.Version {
		r.Roles, r.Version = a.Roles, a.Version
	}
}

// end removes the sessions that are chosen, and notes that it has to be told.
func (r *record) end(reason events.SessionInvalidatedReason, chosen func(s session) bool) (ended int) {
	e := ending{Reason: reason}
	r.Sessions = slices.DeleteFunc(r.Sessions, func(s session) bool {
		if chosen(s) {
			e.SessionIDs = append(e.SessionIDs, s.ID)
			return true
		}
		return false
	})
	if len(e.SessionIDs) > 0 {
		r.Untold = append(r.Untold, e)
	}
	return len(e.SessionIDs)
}

// admit adds a session, and ends the one that was used least lately where there are too many. What began with a password that
// was changed, or an account that was deleted meanwhile, is refused.
func (r *record) admit(s session, most int) error {
	if r.Deleted || s.Generation < r.Generation {
		return errStale
	}
	r.Sessions = append(r.Sessions, s)
	for len(r.Sessions) > most {
		oldest := slices.MinFunc(r.Sessions, func(a, b session) int { return cmp.Or(a.RefreshedAt.Compare(b.RefreshedAt), cmp.Compare(a.ID, b.ID)) })
		r.end(events.SessionInvalidatedReasonRevoked, func(s session) bool { return s.ID == oldest.ID })
	}
	return nil
}

func all(session) bool { return true }
