package gamesession

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/gamesession/gamesessionapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

type (
	seatRequest  = gamesessionapi.SeatRequest
	seatResponse = gamesessionapi.SeatResponse
)

func (s *Service) checkSeat(r *seatRequest) error {
	return cmp.Or(problem.Require("joinId", r.JoinID, "gameSessionId", r.GameSessionID, "sessionId", r.SessionID), s.checkSession(r.SessionID))
}

// checkSession refuses the id of a session to which nothing can be published.
func (s *Service) checkSession(id string) error {
	if s.cfg.Bus.CheckTopic(toTopic(id, "game-session-invitation"), false) != nil {
		return problem.Invalid("sessionId", "is no id of a session: it is part of a topic, and has a-z, 0-9, - and _")
	}
	return nil
}

// reserveSeat is POST /game-session/reserve.
func (s *Service) reserveSeat(ctx context.Context, r *seatRequest) (*seatResponse, error) {
	if err := s.checkSeat(r); err != nil {
		return nil, err
	}
	if err := s.note(ctx, r.SessionID, r.GameSessionID); err != nil {
		return nil, err
	}
	return new(seatResponse), s.change(ctx, r.GameSessionID, func(t *table) (bool, error) {
		switch {
		case t.byJoin(r.JoinID) != nil:
			return false, nil // this request once more
		case t.bySession(r.SessionID) != nil:
			return false, problem.New(problem.Conflict, "the session has a seat there already").At("sessionId")
		case t.free() <= 0:
			return false, problem.New(problem.Conflict, "the game session has no free seat").At("gameSessionId")
		}
		now := s.cfg.Now().UTC()
		t.Players = append(t.Players, player{
			JoinID: r.JoinID, SessionID: r.SessionID, AccountID: r.AccountID, Status: reserved, Since: now, Until: now.Add(s.cfg.ConfirmWithin + grace),
		})
		return true, nil
	})
}

// invitePlayer is POST /game-session/invite.
func (s *Service) invitePlayer(ctx context.Context, r *seatRequest) (*seatResponse, error) {
	if err := s.checkSeat(r); err != nil {
		return nil, err
	}
	e := events.GameSessionInvitedEvent{
		JoinID: r.JoinID, GameSessionID: r.GameSessionID, SessionID: r.SessionID, AnswerBefore: s.cfg.Now().UTC().Add(s.cfg.ConfirmWithin),
	}
	toPlayer := e
	return new(seatResponse), errors.Join(
		s.publish(ctx, toTopic(r.SessionID, "game-session-invitation"), &toPlayer, r.SessionID, "to-player", r.JoinID),
		s.publish(ctx, events.TopicGameSessionInvited, &e, r.SessionID, "invited", r.JoinID))
}

// takeSeat is POST /game-session/seat.
func (s *Service) takeSeat(ctx context.Context, r *seatRequest) (*seatResponse, error) {
	if err := s.checkSeat(r); err != nil {
		return nil, err
	}
	if where, err := s.whereabouts(ctx, r.SessionID); err != nil || where.Ended {
		return nil, cmp.Or(err, errSessionEnded())
	}
	var since time.Time // when the session is in the state, however late others are told
	if err := s.change(ctx, r.GameSessionID, func(t *table) (bool, error) {
		p := t.byJoin(r.JoinID)
		if p == nil || p.Status == leaving {
			return false, problem.New(problem.Conflict, "the seat is held no longer").At("joinId")
		}
		seat := p.Status != joined
		if seat {
			p.Status, p.Since, p.Until = joined, s.cfg.Now().UTC(), time.Time{}
		}
		since = p.Since
		return seat, nil
	}); err != nil {
		return nil, err
	}
	return new(seatResponse), s.publish(ctx, events.TopicPermissionsSessionStateChanged, &events.SessionStateChangeEvent{
		Base: events.Base{Timestamp: since}, SessionID: r.SessionID, ServiceName: s.Name(), NewState: joined,
	}, r.SessionID, joined, r.JoinID)
}

// releaseSeat is POST /game-session/release.
func (s *Service) releaseSeat(ctx context.Context, r *seatRequest) (*seatResponse, error) {
	if err := s.checkSeat(r); err != nil {
		return nil, err
	}
	_, err := s.remove(ctx, r.GameSessionID, func(t *table) *player { return t.byJoin(r.JoinID) })
	if _, gone := errors.AsType[*problem.Problem](err); err != nil && !gone { // a game session that is gone holds no seat
		return nil, err
	}
	e := events.GameSessionJoinEndedEvent{JoinID: r.JoinID, GameSessionID: r.GameSessionID, SessionID: r.SessionID}
	toPlayer := e
	return new(seatResponse), errors.Join(
		s.publish(ctx, toTopic(r.SessionID, "game-session-join-ended"), &toPlayer, r.SessionID, "ended-to-player", r.JoinID),
		s.publish(ctx, events.TopicGameSessionJoinEnded, &e, r.SessionID, "ended", r.JoinID))
}

// remove frees a seat. One that was taken is left in three steps, so that whoever dies in between is followed by who asks again: the seat is
// free, others are told, the player is forgotten.
func (s *Service) remove(ctx context.Context, gameSessionID string, which func(t *table) *player) (removed bool, err error) {
	var left *player
	if err := s.change(ctx, gameSessionID, func(t *table) (bool, error) {
		left = nil
		p := which(t)
		if removed = p != nil; !removed {
			return false, nil
		}
		if p.Status == reserved {
			t.forget(p.JoinID)
			return true, nil
		}
		p.Status = leaving
		copied := *p
		left = &copied
		return true, nil
	}); err != nil || left == nil {
		return removed, err
	}
	if err := s.tellLeft(ctx, gameSessionID, left); err != nil {
		return true, err
	}
	return true, s.change(ctx, gameSessionID, func(t *table) (bool, error) { return t.forget(left.JoinID), nil })
}

// leave frees what a session has of a game session: a seat, and one before it whose leaving was not followed to its end. With a
// time, only what it had by then.
func (s *Service) leave(ctx context.Context, gameSessionID, sessionID string, by time.Time) (left bool, err error) {
	for {
		removed, err := s.remove(ctx, gameSessionID, func(t *table) *player {
			return t.find(func(p player) bool { return p.SessionID == sessionID && (by.IsZero() || !p.Since.After(by)) })
		})
		if left = left || removed; err != nil || !removed {
			return left, err
		}
	}
}

func (t *table) forget(joinID string) bool {
	before := len(t.Players)
	t.Players = slices.DeleteFunc(t.Players, func(p player) bool { return p.JoinID == joinID })
	return len(t.Players) != before
}

// tellLeft tells that a seat was left, and the state of the session, which has one for all game sessions: it stays where it sits in another.
func (s *Service) tellLeft(ctx context.Context, gameSessionID string, p *player) error {
	at := s.cfg.Now().UTC() // before it is looked: who sits down from then on has a newer state
	if !at.After(p.Since) {
		at = p.Since.Add(time.Microsecond)
	}
	sits, err := s.sits(ctx, p.SessionID)
	if err != nil {
		return err
	}
	if !sits {
		err = s.publish(ctx, events.TopicPermissionsSessionStateChanged, &events.SessionStateChangeEvent{
			Base: events.Base{Timestamp: at}, SessionID: p.SessionID, ServiceName: s.Name(), PreviousState: joined,
		}, p.SessionID, "left", p.JoinID)
	}
	return errors.Join(err, s.publish(ctx, events.TopicGameSessionPlayerLeft,
		&events.GameSessionPlayerLeftEvent{GameSessionID: gameSessionID, SessionID: p.SessionID, AccountID: p.AccountID}, p.SessionID, "player-left", p.JoinID))
}

// invalidated frees the seats of sessions that have ended.
func (s *Service) invalidated(ctx context.Context, e *events.SessionInvalidatedEvent) error {
	var errs []error
	for _, id := range e.SessionIDs {
		errs = append(errs, s.end(ctx, id))
	}
	return errors.Join(errs...)
}

// disconnected frees the seats of a session whose client does not come back. The event may come late, or once more, when a client that began anew
// sits again: what it has got since is its own.
func (s *Service) disconnected(ctx context.Context, e *events.SessionDisconnectedEvent) error {
	if e.Reconnectable {
		return nil
	}
	at := e.Timestamp
	if now := s.cfg.Now(); at.After(now) { // whose clock is ahead must not take away what comes after
		at = now
	}
	return s.leaveAll(ctx, e.SessionID, at)
}

// toTopic is a topic of one session, which its client gets.
func toTopic(sessionID, what string) string { return "session." + sessionID + "." + what }

// space is what ids of events are derived in.
var space = uuid.MustParse("0b7c8a1e-5b1c-4a55-9a3a-7c1d2f1f7f0e") //nolint:gochecknoglobals // a constant

// publish tells of a step. The id is the same each time, so that who is told twice knows it.
func (s *Service) publish(ctx context.Context, topic string, e bus.Event, key, what, joinID string) error {
	id := uuid.NewSHA1(space, []byte(what+" "+joinID)).String()
	_, err := s.cfg.Bus.PublishWith(ctx, topic, e, bus.PublishOptions{MessageID: id, PartitionKey: key})
	return unavailable(err)
}

// unavailable is an error of the bus to who may try again.
func unavailable(err error) error {
	if err == nil || errors.Is(err, bus.ErrInvalid) {
		return err
	}
	return errors.Join(state.ErrUnavailable, err)
}
