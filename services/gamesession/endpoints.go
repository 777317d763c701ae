package gamesession

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/gamesession/gamesessionapi"
	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/problem"
)

const (
	maxSeats     = 256
	maxNameBytes = 128
	listPage     = 50
	maxPage      = 100
)

// Mount registers /game-session/*.
func (s *Service) Mount(mux *http.ServeMux) error {
	gamesessionapi.HandlerWithOptions(endpoints{s, s.operations()}, gamesessionapi.StdHTTPServerOptions{
		BaseRouter:       mux,
		ErrorHandlerFunc: jsonbody.WriteDecodeError,
	})
	return nil
}

func (s *Service) operations() jsonbody.Operations {
	return jsonbody.Operations{Limits: jsonbody.Limits{MaxBytes: s.cfg.MaxBodyBytes}, Timeout: s.cfg.Timeout, Problem: seatProblem}
}

// endpoints are the service's operations as handlers.
type endpoints struct {
	*Service
	operations jsonbody.Operations
}

var _ gamesessionapi.ServerInterface = endpoints{}

func answer[Q, A any](e endpoints, w http.ResponseWriter, r *http.Request, do func(ctx context.Context, request *Q) (*A, error)) {
	jsonbody.Answer(e.operations, w, r, do)
}

// seatProblem is an error of the store or the bus as callers see it. Problems stay as they are.
func seatProblem(err error) error {
	if _, ok := errors.AsType[*problem.Problem](err); ok {
		return err
	}
	switch {
	case errors.Is(err, state.ErrConflict):
		// Not a conflict, which would be final for who asks: the same request may succeed.
		return problem.New(problem.Unavailable, "others change the same at the same time; try again").Because(err)
	case errors.Is(err, bus.ErrUnroutable):
		return problem.New(problem.Unavailable, "no node runs the saga game-session-join; try again when one does").Because(err)
	case errors.Is(err, state.ErrInvalid), errors.Is(err, bus.ErrInvalid):
		return problem.New(problem.InvalidMember, "%s", err).Because(err)
	case errors.Is(err, state.ErrOutcomeUnknown):
		return problem.New(problem.OutcomeUnknown, "the store did not answer in time: it may or may not have been done").Because(err)
	case errors.Is(err, state.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Unavailable, "the store or the bus is away; try again").Because(err)
	default:
		return err
	}
}

// CreateGameSession is POST /game-session/create.
func (e endpoints) CreateGameSession(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.createGameSession)
}

// JoinGameSession is POST /game-session/join.
func (e endpoints) JoinGameSession(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, func(ctx context.Context, q *gamesessionapi.JoinGameSessionRequest) (*gamesessionapi.JoinGameSessionResponse, error) {
		player := playerOf(r)
		q.SessionID, q.AccountID = player.or(q.SessionID, q.AccountID)
		return e.joinGameSession(ctx, q)
	})
}

// AnswerJoin is POST /game-session/answer-join.
func (e endpoints) AnswerJoin(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.answerJoin) }

// LeaveGameSession is POST /game-session/leave.
func (e endpoints) LeaveGameSession(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, func(ctx context.Context, q *gamesessionapi.LeaveGameSessionRequest) (*gamesessionapi.LeaveGameSessionResponse, error) {
		q.SessionID, _ = playerOf(r).or(q.SessionID, "")
		return e.leaveGameSession(ctx, q)
	})
}

// GetGameSession is POST /game-session/get.
func (e endpoints) GetGameSession(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.getGameSession)
}

// ListGameSessions is POST /game-session/list.
func (e endpoints) ListGameSessions(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.listGameSessions)
}

// ReserveSeat is POST /game-session/reserve.
func (e endpoints) ReserveSeat(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.reserveSeat)
}

// InvitePlayer is POST /game-session/invite.
func (e endpoints) InvitePlayer(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.invitePlayer)
}

// TakeSeat is POST /game-session/seat.
func (e endpoints) TakeSeat(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.takeSeat) }

// ReleaseSeat is POST /game-session/release.
func (e endpoints) ReleaseSeat(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.releaseSeat)
}

// RemovePlayer is POST /game-session/players/remove.
func (e endpoints) RemovePlayer(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.removePlayer)
}

// A caller is the player whom the gateway speaks for.
type caller struct{ sessionID, accountID string }

// playerOf is who sent a request through the gateway, which takes these headers from nobody else. Empty: it came from a service.
func playerOf(r *http.Request) caller {
	return caller{r.Header.Get("Bannou-Session-Id"), r.Header.Get("Bannou-Account-Id")}
}

// or is the player, or who the request names where it came from a service.
func (c caller) or(sessionID, accountID string) (string, string) {
	if c.sessionID != "" {
		return c.sessionID, c.accountID
	}
	return sessionID, accountID
}

func (s *Service) createGameSession(ctx context.Context, r *gamesessionapi.CreateGameSessionRequest) (*gamesessionapi.GameSession, error) {
	switch {
	case r.Seats < 1 || r.Seats > maxSeats:
		return nil, problem.Invalid("seats", "is %d, and has to be 1 to %d", r.Seats, maxSeats)
	case len(r.Name) > maxNameBytes:
		return nil, problem.Invalid("name", "has %d bytes, at most %d are allowed", len(r.Name), maxNameBytes)
	}
	store, err := state.Open[table](ctx, s.cfg.Factory, Store)
	if err != nil {
		return nil, err
	}
	id, t := uuid.NewString(), table{Name: r.Name, Seats: r.Seats, CreatedAt: s.cfg.Now().UTC(), Players: []player{}}
	if _, err := store.TrySaveWith(ctx, id, t, "", state.SaveOptions{Expiry: state.After(s.cfg.IdleTTL)}); err != nil {
		return nil, err
	}
	return told(id, &t), nil
}

// told is a game session as callers see it.
func told(id string, t *table) *gamesessionapi.GameSession {
	g := &gamesessionapi.GameSession{GameSessionID: id, Name: t.Name, Seats: t.Seats, Free: t.free(), CreatedAt: t.CreatedAt, Players: []gamesessionapi.Player{}}
	for _, p := range t.Players {
		g.Players = append(g.Players, gamesessionapi.Player{SessionID: p.SessionID, AccountID: p.AccountID, Status: p.Status, Since: p.Since})
	}
	return g
}

// joinGameSession begins the saga. That its queue is there is asked for: what nobody would hear is not promised.
func (s *Service) joinGameSession(ctx context.Context, r *gamesessionapi.JoinGameSessionRequest) (*gamesessionapi.JoinGameSessionResponse, error) {
	if err := cmp.Or(problem.Require("gameSessionId", r.GameSessionID, "sessionId", r.SessionID), s.checkSession(r.SessionID)); err != nil {
		return nil, err
	}
	if _, err := s.read(ctx, r.GameSessionID); err != nil {
		return nil, err
	}
	joinID := uuid.NewString()
	if _, err := s.cfg.Bus.PublishWith(ctx, events.TopicGameSessionJoinRequested, &events.GameSessionJoinRequestedEvent{
		JoinID: joinID, GameSessionID: r.GameSessionID, SessionID: r.SessionID, AccountID: r.AccountID,
	}, bus.PublishOptions{PartitionKey: joinID, Mandatory: true}); err != nil {
		return nil, unavailable(err)
	}
	return &gamesessionapi.JoinGameSessionResponse{JoinID: joinID}, nil
}

func (s *Service) answerJoin(ctx context.Context, r *gamesessionapi.AnswerJoinRequest) (*gamesessionapi.AnswerJoinResponse, error) {
	if err := problem.Require("joinId", r.JoinID); err != nil {
		return nil, err
	}
	if _, err := s.cfg.Bus.PublishWith(ctx, events.TopicGameSessionJoinAnswered,
		&events.GameSessionJoinAnsweredEvent{JoinID: r.JoinID, Accepted: r.Accept}, bus.PublishOptions{PartitionKey: r.JoinID, Mandatory: true}); err != nil {
		return nil, unavailable(err)
	}
	return new(gamesessionapi.AnswerJoinResponse), nil
}

func (s *Service) leaveGameSession(ctx context.Context, r *gamesessionapi.LeaveGameSessionRequest) (*gamesessionapi.LeaveGameSessionResponse, error) {
	if err := problem.Require("gameSessionId", r.GameSessionID, "sessionId", r.SessionID); err != nil {
		return nil, err
	}
	left, err := s.leave(ctx, r.GameSessionID, r.SessionID, time.Time{})
	return &gamesessionapi.LeaveGameSessionResponse{Left: left}, err
}

func (s *Service) getGameSession(ctx context.Context, r *gamesessionapi.GetGameSessionRequest) (*gamesessionapi.GameSession, error) {
	if err := problem.Require("gameSessionId", r.GameSessionID); err != nil {
		return nil, err
	}
	t, err := s.read(ctx, r.GameSessionID)
	return told(r.GameSessionID, &t), err
}

func (s *Service) listGameSessions(ctx context.Context, r *gamesessionapi.ListGameSessionsRequest) (*gamesessionapi.ListGameSessionsResponse, error) {
	if r.Limit < 0 || r.Limit > maxPage {
		return nil, problem.Invalid("limit", "is %d, and has to be 1 to %d", r.Limit, maxPage)
	}
	if r.Limit == 0 {
		r.Limit = listPage
	}
	store, err := state.OpenQueryable[table](ctx, s.cfg.Factory, Store)
	if err != nil {
		return nil, err
	}
	page, err := store.QueryAfter(ctx, state.Query{Filter: state.Where("seats").Gte(1)}, r.Cursor, r.Limit)
	if err != nil {
		return nil, err
	}
	listed := &gamesessionapi.ListGameSessionsResponse{GameSessions: []gamesessionapi.GameSession{}, Cursor: page.Next}
	for i := range page.Items {
		t := &page.Items[i].Value
		t.prune(s.cfg.Now())
		listed.GameSessions = append(listed.GameSessions, *told(page.Items[i].Key, t))
	}
	return listed, nil
}
