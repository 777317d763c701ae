package gamesession

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/problem"
)

// Store has one value for each game session, and one for each player with a seat. It can be queried.
const Store = "game-session"

const (
	playerKey = "player:"
	// grace is how much longer a seat is held than its player is waited for: the saga may be late.
	grace = time.Minute
)

// The statuses of a player.
const (
	reserved = "reserved"
	joined   = "joined"
	leaving  = "leaving" // the seat is free; that it was left is still to be told
)

// A table is a game session.
type table struct {
	Name      string    `json:"name,omitempty"`
	Seats     int       `json:"seats"`
	CreatedAt time.Time `json:"createdAt"`
	Players   []player  `json:"players"`
}

// A player has a seat, or is held one.
type player struct {
	JoinID    string    `json:"joinId"`
	SessionID string    `json:"sessionId"`
	AccountID string    `json:"accountId,omitempty"`
	Status    string    `json:"status"`
	Since     time.Time `json:"since"`
	Until     time.Time `json:"until,omitzero"` // of a seat that is held
}

// prune frees seats that were held long enough.
func (t *table) prune(now time.Time) {
	t.Players = slices.DeleteFunc(t.Players, func(p player) bool { return p.Status == reserved && now.After(p.Until) })
}

// free is how many seats nobody has.
func (t *table) free() int {
	free := t.Seats
	for _, p := range t.Players {
		if p.Status != leaving {
			free--
		}
	}
	return free
}

// byJoin is who joined by a request, nil if nobody did.
func (t *table) byJoin(joinID string) *player {
	return t.find(func(p player) bool { return p.JoinID == joinID })
}

// bySession is the player of a session, nil if there is none.
func (t *table) bySession(sessionID string) *player {
	return t.find(func(p player) bool { return p.SessionID == sessionID && p.Status != leaving })
}

func (t *table) find(is func(p player) bool) *player {
	if n := slices.IndexFunc(t.Players, is); n >= 0 {
		return &t.Players[n]
	}
	return nil
}

func errNoTable(id string) error {
	return problem.New(problem.NotFound, "member gameSessionId: there is no game session %.64q", id).At("gameSessionId")
}

// read returns a game session as it is now.
func (s *Service) read(ctx context.Context, id string) (table, error) {
	store, err := state.OpenQueryable[table](ctx, s.cfg.Factory, Store)
	if err != nil {
		return table{}, err
	}
	t, err := store.Get(ctx, id)
	if errors.Is(err, state.ErrNotFound) || err == nil && t.Seats == 0 {
		return table{}, errNoTable(id)
	}
	t.prune(s.cfg.Now())
	return t, err
}

// change changes a game session, if nobody else does meanwhile; else it is decided anew. False leaves it as it is.
func (s *Service) change(ctx context.Context, id string, decide func(t *table) (bool, error)) error {
	store, err := state.OpenQueryable[table](ctx, s.cfg.Factory, Store)
	if err != nil {
		return err
	}
	return state.RetryOnConflict(ctx, func() error {
		entry, err := store.GetWithETag(ctx, id)
		if errors.Is(err, state.ErrNotFound) || err == nil && entry.Value.Seats == 0 {
			return errNoTable(id)
		}
		if err != nil {
			return err
		}
		entry.Value.prune(s.cfg.Now())
		write, err := decide(&entry.Value)
		if err != nil || !write {
			return err
		}
		_, err = store.TrySaveWith(ctx, id, entry.Value, entry.ETag, state.SaveOptions{Expiry: state.After(s.cfg.IdleTTL)})
		return err
	})
}
