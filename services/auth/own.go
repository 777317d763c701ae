package auth

import (
	"context"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/services/auth/authapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// logout is POST /auth/logout.
func (s *Service) logout(ctx context.Context, c caller, r *authapi.LogoutRequest) (*authapi.LogoutResponse, error) {
	accountID, sessionID, err := s.leaving(ctx, c, r.RefreshToken)
	if err != nil {
		return nil, err
	}
	chosen := func(v session) bool { return v.ID == sessionID }
	if r.AllSessions {
		chosen = all
	}
	ended, err := s.endCounted(ctx, accountID, events.SessionInvalidatedReasonLogout, chosen)
	if err != nil {
		return nil, err
	}
	return &authapi.LogoutResponse{Ended: ended}, nil
}

// leaving is the session that logs out, by its access token or its refresh token, be that one that was used.
func (s *Service) leaving(ctx context.Context, c caller, refresh string) (accountID, sessionID string, err error) {
	if refresh == "" {
		own, _, err := s.own(ctx, c)
		if err != nil {
			return "", "", err
		}
		return own.Subject, own.SessionID, nil
	}
	t, err := parseRefreshToken(refresh)
	if err != nil {
		return "", "", refusedToken("refresh token", err)
	}
	accountID, sessionID = t.accountID.String(), t.sessionID.String()
	r, err := s.sessions.read(ctx, accountID)
	if err != nil {
		return "", "", err
	}
	if v := r.find(sessionID); v == nil || !v.Refresh.knows(t) {
		return "", "", refusedToken("refresh token", errNoSession)
	}
	return accountID, sessionID, nil
}

// listSessions is POST /auth/sessions/list.
func (s *Service) listSessions(ctx context.Context, c caller, _ *struct{}) (*authapi.ListSessionsResponse, error) {
	own, r, err := s.own(ctx, c)
	if err != nil {
		return nil, err
	}
	answer := &authapi.ListSessionsResponse{Sessions: []authapi.SessionInfo{}}
	for _, v := range r.Sessions {
		answer.Sessions = append(answer.Sessions, authapi.SessionInfo{
			SessionID: v.ID, Device: v.Device, Address: v.Address, CreatedAt: v.CreatedAt, RefreshedAt: v.RefreshedAt, ExpiresAt: v.ExpiresAt,
			Current: v.ID == own.SessionID,
		})
	}
	return answer, nil
}

// terminateSession is POST /auth/sessions/terminate.
func (s *Service) terminateSession(ctx context.Context, c caller, r *authapi.TerminateSessionRequest) (*authapi.TerminateSessionResponse, error) {
	if err := problem.Require("sessionId", r.SessionID); err != nil {
		return nil, err
	}
	own, _, err := s.own(ctx, c)
	if err != nil {
		return nil, err
	}
	ended, err := s.endCounted(ctx, own.Subject, events.SessionInvalidatedReasonRevoked, func(v session) bool { return v.ID == r.SessionID })
	if err != nil {
		return nil, err
	}
	return &authapi.TerminateSessionResponse{Terminated: ended > 0}, nil
}
