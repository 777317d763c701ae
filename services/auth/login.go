package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/auth/authapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

const (
	minPasswordBytes = 8
	maxPasswordBytes = 256
	maxDeviceBytes   = 128
	maxNameBytes     = 128
	maxEmailBytes    = 254
)

const bearerChallenge = `Bearer realm="bannou"` //nolint:gosec // names the scheme, is none

// errLogin is the one answer to all that was wrong.
func errLogin() error {
	return problem.New(problem.Unauthorized, "there is no account with this address and this password").Challenge(bearerChallenge)
}

func checkPassword(member, password string) error {
	switch {
	case password == "":
		return problem.Missing(member)
	case len(password) < minPasswordBytes || len(password) > maxPasswordBytes:
		return problem.Invalid(member, "has to have %d to %d bytes", minPasswordBytes, maxPasswordBytes)
	default:
		return nil
	}
}

func checkLength(member, text string, most int) error {
	if len(text) > most {
		return problem.Invalid(member, "has %d bytes, at most %d are allowed", len(text), most)
	}
	return nil
}

// register is POST /auth/register. The password is kept first, for an hour, then the account is made, then the password is kept
// for good: whatever dies in between, there is no account whose holder cannot log in, and no address that is taken by nobody.
func (s *Service) register(ctx context.Context, c caller, r *authapi.RegistrationRequest) (*authapi.Tokens, error) {
	if err := errors.Join(problem.Require("email", r.Email), checkPassword("password", r.Password)); err != nil {
		return nil, err
	}
	if err := errors.Join(checkLength("email", r.Email, maxEmailBytes), checkLength("displayName", r.DisplayName, maxNameBytes),
		checkLength("device", r.Device, maxDeviceBytes)); err != nil {
		return nil, err
	}
	if wait, err := s.counters.take(ctx, perAddress("register", c.address), s.cfg.Throttle.PerAddress); err != nil || wait > 0 {
		return nil, throttleError(err, wait)
	}
	hash, err := s.hasher.hash(ctx, r.Password)
	if err != nil {
		return nil, err
	}
	a := Account{ID: uuid.NewString(), Email: r.Email, DisplayName: r.DisplayName}
	v := credential{Hash: hash, Generation: 1, ChangedAt: s.cfg.Now().UTC(), Pending: true}
	etag, err := s.credentials.save(ctx, a.ID, v, "")
	if err != nil {
		return nil, err
	}
	if a, err = s.cfg.Accounts.Create(ctx, a); err != nil {
		return nil, registerProblem(err) // the password goes by itself
	}
	s.settle(ctx, a.ID, v, etag)
	tokens, err := s.begin(ctx, c, a, v.Generation, r.Device)
	if err != nil {
		return nil, problem.New(problem.Unavailable, "the account was made, and its first login failed; log in").Because(err)
	}
	return tokens, nil
}

func throttleError(err error, wait time.Duration) error {
	if err != nil {
		return err
	}
	return throttled(wait)
}

func registerProblem(err error) error {
	refusal, answered := errors.AsType[*mesh.ResponseError](err)
	switch {
	case answered && errors.Is(err, ErrRefused):
		return problem.New(problem.InvalidMember, "the account was refused: %s", refusal.Detail).Because(err)
	case errors.Is(err, ErrTaken):
		return problem.New(problem.Conflict, "member email: another account has this address").At("email").Because(err)
	case answered && refusal.Code != string(problem.OutcomeUnknown), notSent(err):
		return err
	default:
		return problem.New(problem.OutcomeUnknown, "the accounts service did not say whether it made the account: log in, and register again if that is refused").Because(err)
	}
}

// settle keeps a password for good whose account is there. If that fails, the next login does it.
func (s *Service) settle(ctx context.Context, accountID string, v credential, etag string) {
	v.Pending = false
	if _, err := s.credentials.save(ctx, accountID, v, etag); err != nil && !errors.Is(err, state.ErrConflict) {
		s.cfg.Logger.WarnContext(ctx, "a new password is kept for an hour only, or until its holder logs in", slog.String("account", accountID), slog.Any("error", err))
	}
}

// login is POST /auth/login. For an account that does not exist it does what it does for one that does, to the stores too.
func (s *Service) login(ctx context.Context, c caller, r *authapi.LoginRequest) (*authapi.Tokens, error) {
	if err := problem.Require("email", r.Email, "password", r.Password); err != nil {
		return nil, err
	}
	if err := checkLength("device", r.Device, maxDeviceBytes); err != nil {
		return nil, err
	}
	tokens, err := s.tryLogin(ctx, c, r)
	p, refused := errors.AsType[*problem.Problem](err)
	switch {
	case err == nil:
		s.counts.login(ctx, "ok")
	case refused && p.Code == problem.Unauthorized:
		s.counts.login(ctx, "refused")
	case refused && p.Code == problem.TooManyRequests:
		s.counts.login(ctx, "throttled")
	default:
		s.counts.login(ctx, "failed")
	}
	return tokens, err
}

func (s *Service) tryLogin(ctx context.Context, c caller, r *authapi.LoginRequest) (*authapi.Tokens, error) {
	if len(r.Email) > maxEmailBytes || len(r.Password) > maxPasswordBytes {
		return nil, errLogin() // nobody's; and a long password must cost nothing
	}
	ofAddress, ofAccount := perAddress("login", c.address), perAccount("login", r.Email)
	if wait, err := s.counters.take(ctx, ofAddress, s.cfg.Throttle.PerAddress); err != nil || wait > 0 {
		return nil, throttleError(err, wait)
	}
	if wait, err := s.counters.take(ctx, ofAccount, s.cfg.Throttle.PerAccount); err != nil || wait > 0 {
		return nil, throttleError(err, wait)
	}
	a, err := s.cfg.Accounts.ByEmail(ctx, r.Email)
	if err != nil && !errors.Is(err, ErrNoAccount) {
		return nil, err
	}
	if a.ID == "" {
		a.ID = uuid.Nil.String()
	}
	v, etag, err := s.credentials.get(ctx, a.ID)
	if err != nil {
		return nil, err
	}
	hash := v.Hash
	if hash == "" {
		hash = s.dummy
	}
	right, old, err := s.hasher.verify(ctx, r.Password, hash)
	if err != nil {
		return nil, err
	}
	if !right || v.Hash == "" {
		return nil, errLogin()
	}
	if err := errors.Join(s.counters.forget(ctx, ofAccount), s.counters.giveBack(ctx, ofAddress)); err != nil {
		s.cfg.Logger.WarnContext(ctx, "a login that succeeded goes on to count as a try", slog.Any("error", err))
	}
	switch {
	case old:
		s.rehash(ctx, a.ID, r.Password, v, etag)
	case v.Pending:
		s.settle(ctx, a.ID, v, etag)
	}
	return s.begin(ctx, c, a, v.Generation, r.Device)
}

// rehash keeps a password with the parameters of today. If that fails, the next login does it.
func (s *Service) rehash(ctx context.Context, accountID, password string, v credential, etag string) {
	hash, err := s.hasher.hash(ctx, password)
	if err == nil {
		v.Hash, v.Pending = hash, false
		_, err = s.credentials.save(ctx, accountID, v, etag)
	}
	if err != nil && !errors.Is(err, state.ErrConflict) {
		s.cfg.Logger.WarnContext(ctx, "a password could not be hashed anew", slog.String("account", accountID), slog.Any("error", err))
	}
}

// begin adds a session to an account, tells of it, and makes its tokens.
func (s *Service) begin(ctx context.Context, c caller, a Account, generation int64, device string) (*authapi.Tokens, error) {
	accountID, err := uuid.Parse(a.ID)
	if err != nil {
		return nil, fmt.Errorf("the id of an account: %w", err)
	}
	sessionID, now := uuid.New(), s.cfg.Now().UTC()
	chain, refresh := newChain(accountID, sessionID, now)
	added := session{ID: sessionID.String(), Device: device, Address: c.address, CreatedAt: now, RefreshedAt: now, Generation: generation, Refresh: chain}
	added.ExpiresAt = s.expiry(added, now)
	var seen record
	err = s.sessions.change(ctx, a.ID, func(r *record) (bool, error) {
		r.see(a)
		err := r.admit(added, s.cfg.MaxSessions)
		seen = *r
		return err == nil, err
	})
	if errors.Is(err, errStale) {
		return nil, errLogin()
	}
	if err != nil {
		return nil, err
	}
	if err := s.tellUpdated(ctx, a.ID, added.ID, seen.Roles, seen.Version, events.SessionUpdatedReasonLogin); err != nil {
		// Nobody would know what the session may do: there is none.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("%w: %w", state.ErrUnavailable, err), s.endSessions(undo, a.ID, events.SessionInvalidatedReasonRevoked, func(o session) bool { return o.ID == added.ID }))
	}
	if len(seen.Untold) > 0 {
		s.tellOrLater(ctx, a.ID)
	}
	return s.tokens(ctx, a.ID, added, seen.Roles, refresh)
}

// expiry is when a session ends that is not refreshed from now on.
func (s *Service) expiry(v session, now time.Time) time.Time {
	idle, most := now.Add(s.cfg.IdleTTL), v.CreatedAt.Add(s.cfg.SessionTTL)
	if idle.After(most) {
		return most
	}
	return idle
}

func (s *Service) tokens(ctx context.Context, accountID string, v session, roles []string, refresh refreshToken) (*authapi.Tokens, error) {
	expires := s.cfg.Now().Add(s.cfg.AccessTTL).UTC().Truncate(time.Second)
	access, err := s.sign(ctx, accountID, v.ID, expires)
	if err != nil {
		return nil, err
	}
	if roles == nil {
		roles = []string{}
	}
	return &authapi.Tokens{
		AccountID: accountID, SessionID: v.ID, AccessToken: access, TokenType: "Bearer", ExpiresAt: expires,
		RefreshToken: refresh.String(), RefreshExpiresAt: v.ExpiresAt, Roles: roles,
	}, nil
}

// endSessions ends those that are chosen, and tells of it.
func (s *Service) endSessions(ctx context.Context, accountID string, reason events.SessionInvalidatedReason, chosen func(session) bool) error {
	_, err := s.endCounted(ctx, accountID, reason, chosen)
	return err
}

func (s *Service) endCounted(ctx context.Context, accountID string, reason events.SessionInvalidatedReason, chosen func(session) bool) (ended int, err error) {
	err = s.sessions.change(ctx, accountID, func(r *record) (bool, error) {
		ended = r.end(reason, chosen)
		return ended > 0, nil
	})
	if err == nil && ended > 0 {
		s.tellOrLater(ctx, accountID)
	}
	return ended, err
}
