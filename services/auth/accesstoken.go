package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

const (
	leeway        = 5 * time.Second // between the clocks of nodes
	maxTokenBytes = 2048
	tokenType     = "at+jwt" // RFC 9068, so that no other kind of JWT that a key might sign is taken for one
)

// claims are what an access token says: whose it is, and of which session. What the session may do is asked of the session.
type claims struct {
	SessionID string `json:"sid"`
	jwt.RegisteredClaims
}

// errToken reports an access token that does not hold, for whatever reason.
var errToken = errors.New("the access token does not hold")

// sign makes an access token.
func (s *Service) sign(ctx context.Context, accountID, sessionID string, expires time.Time) (string, error) {
	key, err := s.ring.signing(ctx)
	if err != nil {
		return "", err
	}
	now := s.cfg.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims{SessionID: sessionID, RegisteredClaims: jwt.RegisteredClaims{
		Issuer: s.cfg.Issuer, Subject: accountID, IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(expires), ID: uuid.NewString(),
	}})
	token.Header["kid"], token.Header["typ"] = key.ID, tokenType
	return token.SignedString(key.private())
}

// verify reads an access token. errToken: it is malformed, forged, expired, or of another kind. Other errors: it cannot be told now.
func (s *Service) verify(ctx context.Context, text string) (*claims, error) {
	// One token has one form: decoders of base64 pass over line ends.
	if len(text) > maxTokenBytes || strings.ContainsAny(text, "\r\n") {
		return nil, errToken
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithIssuer(s.cfg.Issuer),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway), jwt.WithStrictDecoding(), jwt.WithTimeFunc(s.cfg.Now))
	var c claims
	var unknown error // what the store said
	_, err := parser.ParseWithClaims(text, &c, func(token *jwt.Token) (any, error) {
		id, _ := token.Header["kid"].(string)
		if kind, _ := token.Header["typ"].(string); id == "" || kind != tokenType {
			return nil, errToken
		}
		key, found, err := s.ring.verifying(ctx, id)
		if err != nil {
			unknown = err
			return nil, err
		}
		if !found {
			return nil, errToken
		}
		return key.public(), nil
	})
	if unknown != nil {
		return nil, unknown
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errToken, err)
	}
	for _, id := range []string{c.Subject, c.SessionID} {
		if parsed, err := uuid.Parse(id); err != nil || parsed.String() != id {
			return nil, errToken
		}
	}
	return &c, nil
}
