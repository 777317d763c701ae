package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/services/auth/authapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// refusedToken is the one answer to all that may be wrong with a token.
func refusedToken(kind string, cause error) error {
	return problem.New(problem.Unauthorized, "the %s does not hold: it is malformed, forged, used or expired, or its session has ended; log in again", kind).
		Challenge(bearerChallenge + `, error="invalid_token"`).Because(cause)
}

// own is who asks for something of his own: by his access token, or where there is none by the gateway's word.
func (s *Service) own(ctx context.Context, c caller) (*claims, record, error) {
	if c.sessionID == "" || c.token != "" {
		return s.authenticate(ctx, c.token)
	}
	r, err := s.sessions.read(ctx, c.accountID)
	if err != nil {
		return nil, record{}, err
	}
	if r.find(c.sessionID) == nil {
		return nil, record{}, problem.New(problem.Unauthorized, "the session has ended; log in again").Challenge(bearerChallenge).Because(errNoSession)
	}
	v := &claims{SessionID: c.sessionID}
	v.Subject = c.accountID
	return v, r, nil
}

// authenticate is whose an access token is, and the record of his sessions as it is now. It writes nothing, so that it brings
// nothing back.
func (s *Service) authenticate(ctx context.Context, token string) (*claims, record, error) {
	c, err := s.verify(ctx, token)
	if errors.Is(err, errToken) {
		return nil, record{}, refusedToken("access token", err)
	}
	if err != nil {
		return nil, record{}, err
	}
	r, err := s.sessions.read(ctx, c.Subject)
	if err != nil {
		return nil, record{}, err
	}
	if r.find(c.SessionID) == nil {
		return nil, record{}, refusedToken("access token", errNoSession)
	}
	return c, r, nil
}

// validate is POST /auth/validate.
func (s *Service) validate(ctx context.Context, _ caller, r *authapi.ValidateRequest) (*authapi.Session, error) {
	if err := problem.Require("accessToken", r.AccessToken); err != nil {
		return nil, err
	}
	c, record, err := s.authenticate(ctx, r.AccessToken)
	if err != nil {
		return nil, err
	}
	return &authapi.Session{
		AccountID: c.Subject, SessionID: c.SessionID, Roles: append([]string{}, record.Roles...), ExpiresAt: c.ExpiresAt.UTC(),
		SessionExpiresAt: record.find(c.SessionID).ExpiresAt,
	}, nil
}

// refresh is POST /auth/refresh.
func (s *Service) refresh(ctx context.Context, _ caller, r *authapi.RefreshRequest) (*authapi.Tokens, error) {
	if err := problem.Require("refreshToken", r.RefreshToken); err != nil {
		return nil, err
	}
	used, err := parseRefreshToken(r.RefreshToken)
	if err != nil {
		return nil, refusedToken("refresh token", err)
	}
	accountID, sessionID := used.accountID.String(), used.sessionID.String()
	if known, err := s.sessions.read(ctx, accountID); err != nil || known.find(sessionID) == nil {
		return nil, orRefused(err) // made-up tokens cost others nothing
	}
	a, err := s.cfg.Accounts.Get(ctx, accountID)
	if errors.Is(err, ErrNoAccount) {
		return nil, refusedToken("refresh token", err)
	}
	if err != nil {
		return nil, err
	}
	v, _, err := s.credentials.get(ctx, accountID)
	if err != nil {
		return nil, err
	}
	t, err := s.rotate(ctx, a, v.Generation, used)
	if err != nil {
		return nil, err
	}
	switch t.verdict {
	case reused:
		s.counts.revoked.Add(ctx, 1)
		s.cfg.Logger.WarnContext(ctx, "a refresh token was used twice, and its session ended: two have it",
			slog.String("account", accountID), slog.String("session", sessionID))
	case fresh, repeated:
		return s.tokens(ctx, accountID, t.session, t.roles, t.next)
	case foreign: // refused below
	}
	if t.ended {
		s.tellOrLater(ctx, accountID)
	}
	return nil, refusedToken("refresh token", nil)
}

func orRefused(err error) error {
	if err != nil {
		return err
	}
	return refusedToken("refresh token", errNoSession)
}

// A rotation is what came of a refresh token.
type rotation struct {
	verdict verdict
	next    refreshToken
	session session
	roles   []string
	ended   bool
}

// rotate uses a refresh token in one step with all that depends on it.
func (s *Service) rotate(ctx context.Context, a Account, generation int64, used refreshToken) (t rotation, err error) {
	id := used.sessionID.String()
	err = s.sessions.change(ctx, a.ID, func(r *record) (bool, error) {
		t = rotation{}
		v := r.find(id)
		if v == nil {
			return false, nil
		}
		chosen := func(o session) bool { return o.ID == id }
		if v.Refresh.knows(used) && v.Generation < generation { // a change of the password that could not end it
			r.end(events.SessionInvalidatedReasonCredentialsChanged, chosen)
			t.ended = true
			return true, nil
		}
		now := s.cfg.Now().UTC()
		r.see(a)
		t.roles = r.Roles
		switch t.verdict, t.next = v.Refresh.use(used, now, s.cfg.RefreshGrace); t.verdict {
		case fresh:
			v.RefreshedAt, v.ExpiresAt = now, s.expiry(*v, now)
			t.session = *v
			return true, nil
		case repeated:
			t.session = *v
			return false, nil
		case reused:
			r.end(events.SessionInvalidatedReasonRevoked, chosen)
			t.ended = true
			return true, nil
		default:
			return false, nil
		}
	})
	return t, err
}

// getKeys is GET /auth/jwks.
func (s *Service) getKeys(ctx context.Context) (*authapi.KeySet, error) {
	k, err := s.ring.all(ctx)
	if err != nil {
		return nil, err
	}
	set := &authapi.KeySet{Keys: []authapi.Key{}}
	for _, key := range k.Keys {
		set.Keys = append(set.Keys, authapi.Key{Kty: "OKP", Crv: "Ed25519", X: base64.RawURLEncoding.EncodeToString(key.public()), Kid: key.ID, Alg: "EdDSA", Use: "sig"})
	}
	return set, nil
}
