package connect

import (
	"context"
	"errors"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// SessionStore has a record for each session that is connected or may come back.
const SessionStore = "connect-sessions"

// A record is what all nodes know of a session.
type record struct {
	AccountID  string    `json:"accountId"`
	Roles      []string  `json:"roles,omitempty"`
	InstanceID string    `json:"instanceId"`      // of the node that holds the connection, or held it last
	Epoch      int64     `json:"epoch"`           // numbers the session's connections, from a time on (Unix, in microseconds)
	Salt       []byte    `json:"salt"`            // of the ids of its endpoints
	Token      []byte    `json:"token"`           // the digest of the reconnection token that was given last
	Until      time.Time `json:"until"`           // when an access token has to be shown again
	Ends       time.Time `json:"ends,omitzero"`   // when the session's time is over, as far as the access token told that was shown last
	Ended      bool      `json:"ended,omitempty"` // the session is over: nobody connects to it any more
	Bare       bool      `json:"bare,omitempty"`  // nobody knows yet that its queue stands: who connects has none to go on with
	Lost       bool      `json:"lost,omitempty"`  // what waited for it is gone: who connects begins anew, with an access token
	Loss       loss      `json:"loss,omitzero"`   // the last time that it was
	Anew       int64     `json:"begun,omitempty"` // counts how often it has begun anew, each time with a new queue
}

// A loss is when it was noted that what waited for a session is gone, and the node that held its connection.
type loss struct {
	At         time.Time `json:"at"`
	InstanceID string    `json:"instanceId"`
}

// goesOn reports whether the session had a connection that the next one may go on from.
func (r record) goesOn() bool { return r.Epoch > 0 && !r.Lost && !r.Bare }

// endedFor is how long it is remembered that a session has ended, so that who was about to connect then is refused.
const endedFor = 10 * time.Minute

// What a change of a record may find.
var (
	errReplaced = errors.New("the session has a newer connection")
	errEnded    = errors.New("the session has ended")
	errLost     = errors.New("what waited for the session is gone")
	errBefore   = errors.New("the session has begun anew since")
	errRefused  = errors.New("the reconnection token holds for no session")
)

// records keep them.
type records struct{ factory *state.Factory }

func (r records) open(ctx context.Context) (*state.Store[record], error) {
	return state.Open[record](ctx, r.factory, SessionStore)
}

// change changes the record of a session in one step, a zero one if there is none, and returns what it was and is.
func (r records) change(ctx context.Context, sessionID string, life time.Duration, change func(v *record, found bool) error) (before, after record, err error) {
	store, err := r.open(ctx)
	if err != nil {
		return before, after, err
	}
	for {
		kept, err := store.GetWithETag(ctx, sessionID)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return before, after, err
		}
		before, after = kept.Value, kept.Value
		if err := change(&after, kept.Found); err != nil {
			return before, after, err
		}
		_, err = store.TrySaveWith(ctx, sessionID, after, kept.ETag, state.SaveOptions{Expiry: state.After(life)})
		if !errors.Is(err, state.ErrConflict) {
			return before, after, err
		}
		if ctx.Err() != nil {
			return before, after, errors.Join(context.Cause(ctx), err)
		}
	}
}

// keep prolongs the record of a connection, unless a newer one has it. Only the connection's own node does. A store that has lost its
// memory gets it again: of a session that has ended there is a record that says so. It returns what it is, also where that is another's.
func (r records) keep(ctx context.Context, sessionID string, own record, life time.Duration) (now record, err error) {
	return r.keepAs(ctx, sessionID, own, life, func(*record) {})
}

// stands notes besides that the connection's queue stands, bare that it does not: there is none, or it is about to be emptied.
func (r records) stands(ctx context.Context, sessionID string, own record, life time.Duration) error {
	_, err := r.keepAs(ctx, sessionID, own, life, func(v *record) { v.Bare = false })
	return err
}

func (r records) bare(ctx context.Context, sessionID string, own record, life time.Duration) error {
	_, err := r.keepAs(ctx, sessionID, own, life, func(v *record) { v.Bare = true })
	return err
}

func (r records) keepAs(ctx context.Context, sessionID string, own record, life time.Duration, note func(v *record)) (now record, err error) {
	_, now, err = r.change(ctx, sessionID, life, func(v *record, found bool) error {
		switch {
		case !found:
			*v = own
		case v.Ended:
			return errEnded
		case v.Lost:
			return errLost
		case v.Epoch != own.Epoch:
			return errReplaced
		}
		note(v)
		return nil
	})
	return now, err
}

// end forgets a session for good, and returns how often it had begun anew.
func (r records) end(ctx context.Context, sessionID string) (anew int64, err error) {
	before, _, err := r.change(ctx, sessionID, endedFor, func(v *record, _ bool) error {
		if v.Ended { // every node hears of it
			return errEnded
		}
		*v = record{Ended: true, Epoch: v.Epoch + 1, Anew: v.Anew}
		return nil
	})
	if errors.Is(err, errEnded) {
		err = nil
	}
	return before.Anew, err
}

// lose notes that what waited in one of the session's queues is gone, and returns what there is. errLost: it was noted before; errBefore: the
// session has begun anew since; errEnded: there is no session that could miss it.
func (r records) lose(ctx context.Context, sessionID string, anew int64, life time.Duration) (now record, err error) {
	_, now, err = r.change(ctx, sessionID, life, func(v *record, found bool) error {
		switch {
		case !found || v.Ended:
			return errEnded
		case v.Anew != anew:
			return errBefore
		case v.Lost:
			return errLost
		}
		*v = record{AccountID: v.AccountID, InstanceID: v.InstanceID, Epoch: v.Epoch + 1, Lost: true, Loss: loss{time.Now().UTC(), v.InstanceID}, Anew: anew}
		return nil
	})
	return now, err
}
