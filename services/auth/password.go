package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/auth/authapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// done is the answer to what has nothing to say.
type done = struct{}

// changePassword is POST /auth/password/change.
func (s *Service) changePassword(ctx context.Context, c caller, r *authapi.ChangePasswordRequest) (*done, error) {
	if err := errors.Join(problem.Require("currentPassword", r.CurrentPassword), checkPassword("newPassword", r.NewPassword)); err != nil {
		return nil, err
	}
	own, _, err := s.own(ctx, c)
	if err != nil {
		return nil, err
	}
	wrong := problem.New(problem.Forbidden, "member currentPassword is not the password of the account").At("currentPassword")
	if len(r.CurrentPassword) > maxPasswordBytes {
		return nil, wrong
	}
	tries := perAccount("password", own.Subject)
	if wait, err := s.counters.take(ctx, tries, s.cfg.Throttle.PerAccount); err != nil || wait > 0 {
		return nil, throttleError(err, wait)
	}
	v, etag, err := s.credentials.get(ctx, own.Subject)
	if err != nil {
		return nil, err
	}
	if v.Hash == "" {
		return nil, wrong
	}
	right, _, err := s.hasher.verify(ctx, r.CurrentPassword, v.Hash)
	if err != nil {
		return nil, err
	}
	if !right {
		return nil, wrong
	}
	if err := s.counters.forget(ctx, tries); err != nil {
		return nil, err
	}
	hash, err := s.hasher.hash(ctx, r.NewPassword)
	if err != nil {
		return nil, err
	}
	return s.replace(ctx, own.Subject, hash, v, etag)
}

// replace sets a new password, and ends all sessions that began with an old one. If it cannot, they end when they are refreshed.
func (s *Service) replace(ctx context.Context, accountID, hash string, v credential, etag string) (*done, error) {
	v = credential{Hash: hash, Generation: v.Generation + 1, ChangedAt: s.cfg.Now().UTC()}
	if _, err := s.credentials.save(ctx, accountID, v, etag); err != nil {
		return nil, err
	}
	ended := 0
	if err := s.sessions.change(ctx, accountID, func(r *record) (bool, error) {
		r.Generation = max(r.Generation, v.Generation)
		ended = r.end(events.SessionInvalidatedReasonCredentialsChanged, func(o session) bool { return o.Generation < v.Generation })
		return true, nil
	}); err != nil {
		return nil, problem.New(problem.Unavailable, "the new password holds; sessions that began with the old one go on until their access tokens expire").Because(err)
	}
	if ended > 0 {
		s.tellOrLater(ctx, accountID)
	}
	return &done{}, nil
}

// A letter is what the token of one stands for.
type letter struct {
	AccountID  string `json:"accountId"`
	Generation int64  `json:"generation"` // of the password that was forgotten: the token is worth nothing beside another one
	Email      []byte `json:"email"`      // digest of the address that it went to: who had that one before has no claim to the account
}

// maxLetters is how many wait to be written.
const maxLetters = 256

func letterKey(token string) string { return "letter:" + hex.EncodeToString(digest([]byte(token))) }

// requestPasswordReset is POST /auth/password/request-reset. What follows is done after the answer, which so is the same, after the
// same time, for everyone.
func (s *Service) requestPasswordReset(ctx context.Context, c caller, r *authapi.RequestPasswordResetRequest) (*done, error) {
	if err := errors.Join(problem.Require("email", r.Email), checkLength("email", r.Email, maxEmailBytes)); err != nil {
		return nil, err
	}
	if wait, err := s.counters.take(ctx, perAddress("letter", c.address), s.cfg.Throttle.PerAddress); err != nil || wait > 0 {
		return nil, throttleError(err, wait)
	}
	select {
	case s.letters <- r.Email:
		return &done{}, nil
	default:
		return nil, problem.New(problem.Overloaded, "too many letters wait to be written; try again")
	}
}

// writeLetters does what was asked for. What waits when the process ends is asked for again by who waits for his letter.
func (s *Service) writeLetters(ctx context.Context) {
	for {
		select {
		case email := <-s.letters:
			if err := s.writeLetter(ctx, email); err != nil && ctx.Err() == nil {
				s.cfg.Logger.WarnContext(ctx, "a letter about a password could not be sent", slog.Any("error", err))
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *Service) writeLetter(ctx context.Context, email string) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if wait, err := s.counters.take(ctx, perAccount("letter", email), s.cfg.Throttle.Letters); err != nil || wait > 0 {
		return err
	}
	a, err := s.cfg.Accounts.ByEmail(ctx, email)
	if errors.Is(err, ErrNoAccount) {
		return nil
	}
	if err != nil {
		return err
	}
	v, _, err := s.credentials.get(ctx, a.ID)
	if err != nil {
		return err
	}
	store, err := state.Open[letter](ctx, s.cfg.Factory, SessionStore)
	if err != nil {
		return err
	}
	token := base64.RawURLEncoding.EncodeToString(random(secretBytes))
	if _, err := store.SaveWith(ctx, letterKey(token), letter{AccountID: a.ID, Generation: v.Generation, Email: digest([]byte(a.Email))},
		state.SaveOptions{Expiry: state.After(s.cfg.ResetTTL)}); err != nil {
		return err
	}
	_, err = s.cfg.Bus.PublishWith(ctx, events.TopicPasswordResetRequested, &events.PasswordResetRequestedEvent{
		AccountID: a.ID, Email: a.Email, Token: token, ExpiresAt: s.cfg.Now().Add(s.cfg.ResetTTL).UTC().Truncate(time.Second),
	}, bus.PublishOptions{PartitionKey: a.ID, Expiration: s.cfg.ResetTTL})
	return err
}

// confirmPasswordReset is POST /auth/password/confirm-reset. The token is used by the change itself: the password that it was given for
// is not there any more.
func (s *Service) confirmPasswordReset(ctx context.Context, c caller, r *authapi.ConfirmPasswordResetRequest) (*done, error) {
	if err := errors.Join(problem.Require("token", r.Token), checkPassword("newPassword", r.NewPassword)); err != nil {
		return nil, err
	}
	refused := problem.New(problem.Unauthorized, "member token does not hold: it was never given, was used, or has expired; ask for another letter").
		At("token").Challenge(bearerChallenge)
	if len(r.Token) != base64.RawURLEncoding.EncodedLen(secretBytes) {
		return nil, refused
	}
	ofAddress := perAddress("confirm", c.address)
	if wait, err := s.counters.take(ctx, ofAddress, s.cfg.Throttle.PerAddress); err != nil || wait > 0 {
		return nil, throttleError(err, wait)
	}
	store, err := state.Open[letter](ctx, s.cfg.Factory, SessionStore)
	if err != nil {
		return nil, err
	}
	l, err := store.Get(ctx, letterKey(r.Token))
	if errors.Is(err, state.ErrNotFound) {
		return nil, refused
	}
	if err != nil {
		return nil, err
	}
	v, etag, err := s.credentials.get(ctx, l.AccountID)
	if err != nil {
		return nil, err
	}
	a, err := s.cfg.Accounts.Get(ctx, l.AccountID)
	if err != nil && !errors.Is(err, ErrNoAccount) {
		return nil, err
	}
	if err != nil || v.Generation != l.Generation || !bytes.Equal(digest([]byte(a.Email)), l.Email) {
		return nil, refused
	}
	hash, err := s.hasher.hash(ctx, r.NewPassword)
	if err != nil {
		return nil, err
	}
	answer, err := s.replace(ctx, l.AccountID, hash, v, etag)
	if _, told := errors.AsType[*problem.Problem](err); !told && errors.Is(err, state.ErrConflict) { // a problem: the password was set
		return nil, refused
	}
	if err != nil {
		return nil, err
	}
	if _, err := store.Delete(ctx, letterKey(r.Token)); err != nil {
		s.cfg.Logger.DebugContext(ctx, "a letter's token that is worth nothing stays until it expires", slog.Any("error", fmt.Errorf("delete: %w", err)))
	}
	return answer, nil
}
