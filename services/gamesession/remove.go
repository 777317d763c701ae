package gamesession

import (
	"context"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/gamesession/gamesessionapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// maxRemoved is how many sessions are removed by one request.
const maxRemoved = 1000

// removePlayer is POST /game-session/players/remove. Sessions are left as they would be when they end; what then still names the account is of
// sessions that nobody named, and is looked for in all game sessions.
func (s *Service) removePlayer(ctx context.Context, r *gamesessionapi.RemovePlayerRequest) (*gamesessionapi.RemovePlayerResponse, error) {
	if err := problem.Require("accountId", r.AccountID); err != nil {
		return nil, err
	}
	if len(r.SessionIds) > maxRemoved {
		return nil, problem.Invalid("sessionIds", "names %d sessions, at most %d are allowed", len(r.SessionIds), maxRemoved)
	}
	for _, id := range r.SessionIds {
		if err := s.end(ctx, id); err != nil {
			return nil, err
		}
	}
	store, err := state.OpenQueryable[table](ctx, s.cfg.Factory, Store)
	if err != nil {
		return nil, err
	}
	for cursor := ""; ; {
		page, err := store.QueryAfter(ctx, state.Query{Filter: state.Where("players.accountId").Eq(r.AccountID)}, cursor, maxPage)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			for _, p := range page.Items[i].Value.Players {
				if p.AccountID != r.AccountID {
					continue
				}
				if err := s.end(ctx, p.SessionID); err != nil {
					return nil, err
				}
				if _, err := s.leaveOne(ctx, page.Items[i].Key, p.SessionID, time.Time{}); err != nil {
					return nil, err
				}
			}
		}
		if cursor = page.Next; cursor == "" {
			return new(gamesessionapi.RemovePlayerResponse), nil
		}
	}
}
