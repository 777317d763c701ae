package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"
)

// A refresh token is refreshPrefix and, in base64url, the account's id (16 bytes), the session's (16), the family (16) and the
// secret (32). The family stays the same as long as the session lives: by it a token that was used long ago is told from one
// that somebody made up.
const (
	refreshPrefix = "brt_" // so that scanners for secrets can tell it
	familyBytes   = 16
	secretBytes   = 32
	refreshBytes  = 16 + 16 + familyBytes + secretBytes
)

type refreshToken struct {
	accountID, sessionID uuid.UUID
	family, secret       []byte
}

func (t refreshToken) String() string {
	raw := make([]byte, 0, refreshBytes)
	raw = append(raw, t.accountID[:]...)
	raw = append(raw, t.sessionID[:]...)
	raw = append(raw, t.family...)
	raw = append(raw, t.secret...)
	return refreshPrefix + base64.RawURLEncoding.EncodeToString(raw)
}

var errRefreshToken = errors.New("not a refresh token")

// parseRefreshToken reads what String writes, and nothing else.
func parseRefreshToken(s string) (refreshToken, error) {
	text, is := strings.CutPrefix(s, refreshPrefix)
	if !is || base64.RawURLEncoding.DecodedLen(len(text)) != refreshBytes {
		return refreshToken{}, errRefreshToken
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != refreshBytes || strings.ContainsAny(text, "\r\n") {
		return refreshToken{}, errRefreshToken
	}
	t := refreshToken{family: raw[32 : 32+familyBytes], secret: raw[32+familyBytes:]}
	copy(t.accountID[:], raw[:16])
	copy(t.sessionID[:], raw[16:32])
	return t, nil
}

// A chain is what is kept of the refresh tokens of a session: digests, from which no token can be made.
type chain struct {
	Family   []byte    `json:"family"`             // digest
	Current  []byte    `json:"current"`            // digest of the secret that comes next
	Previous []byte    `json:"previous,omitempty"` // digest of the one before
	Salt     []byte    `json:"salt,omitempty"`     // the secret before and this give the current one
	At       time.Time `json:"at"`                 // when the current one was made
}

// newChain begins with a token.
func newChain(accountID, sessionID uuid.UUID, now time.Time) (chain, refreshToken) {
	t := refreshToken{accountID: accountID, sessionID: sessionID, family: random(familyBytes), secret: random(secretBytes)}
	return chain{Family: digest(t.family), Current: digest(t.secret), At: now}, t
}

// A verdict is what a refresh token is to a chain.
type verdict int

const (
	foreign  verdict = iota // it was never of this session
	fresh                   // it is the one that comes next
	repeated                // it is the one before, a moment after it was used: its answer may be lost
	reused                  // it was used before: two have it
)

// use takes a token, and returns the one that follows it for fresh and repeated ones.
//
// The secret that follows is a MAC of a random salt under the secret before, and so the same for who asks again; who reads the
// store has no secret to make it from. A token that is repeated within the grace is answered only as long as what follows it
// was not used: then its answer did arrive.
func (c *chain) use(t refreshToken, now time.Time, grace time.Duration) (verdict, refreshToken) {
	if subtle.ConstantTimeCompare(digest(t.family), c.Family) != 1 {
		return foreign, refreshToken{}
	}
	used := digest(t.secret)
	switch {
	case subtle.ConstantTimeCompare(used, c.Current) == 1:
		salt := random(saltBytes)
		t.secret = following(t.secret, salt)
		c.Previous, c.Salt, c.Current, c.At = used, salt, digest(t.secret), now
		return fresh, t
	case subtle.ConstantTimeCompare(used, c.Previous) == 1 && now.Sub(c.At) <= grace:
		t.secret = following(t.secret, c.Salt)
		return repeated, t
	default:
		return reused, refreshToken{}
	}
}

// knows reports whether the token is, or was, of the chain.
func (c *chain) knows(t refreshToken) bool {
	return subtle.ConstantTimeCompare(digest(t.family), c.Family) == 1
}

func following(secret, salt []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write(salt)
	return mac.Sum(nil)
}

func digest(secret []byte) []byte {
	sum := sha256.Sum256(secret)
	return sum[:]
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}
