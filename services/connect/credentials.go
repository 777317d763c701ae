package connect

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/services/problem"
)

// Subprotocol is what the gateway speaks, for Sec-WebSocket-Protocol.
const Subprotocol = "bannou.v1"

// A browser cannot set Authorization for a WebSocket. It names, beside Subprotocol, one that is a prefix and the token; the node never
// names that one back. A URL would be in logs.
const (
	accessPrefix    = "bannou.access."
	reconnectPrefix = "bannou.reconnect."
)

// credentials are what a request to connect shows: an access token, or a reconnection token.
type credentials struct {
	access, reconnect string
}

// challenge is what is asked of a request without credentials.
const challenge = `Bearer realm="bannou"`

func unauthorized(format string, args ...any) *problem.Problem {
	return problem.New(problem.Unauthorized, format, args...).Challenge(challenge)
}

// credentialsOf reads them. One way, once, is what a request may use.
func credentialsOf(r *http.Request) (c credentials, err error) {
	found := 0
	for _, value := range r.Header.Values("Authorization") {
		scheme, token, _ := strings.Cut(value, " ")
		switch found++; {
		case token == "":
			return c, unauthorized("Authorization has no token")
		case strings.EqualFold(scheme, "Bearer"):
			c.access = token
		case strings.EqualFold(scheme, "Reconnect"):
			c.reconnect = token
		default:
			return c, unauthorized("Authorization is neither Bearer, with an access token, nor Reconnect, with a reconnection token")
		}
	}
	for _, value := range r.Header.Values("Sec-WebSocket-Protocol") {
		for protocol := range strings.SplitSeq(value, ",") {
			protocol = strings.TrimSpace(protocol)
			if token, is := strings.CutPrefix(protocol, accessPrefix); is {
				c.access = token
				found++
			} else if token, is := strings.CutPrefix(protocol, reconnectPrefix); is {
				c.reconnect = token
				found++
			}
		}
	}
	if found != 1 || c.access == "" && c.reconnect == "" {
		return c, unauthorized("to connect, show one token: an access token as Authorization: Bearer, or a reconnection token as Authorization: "+
			"Reconnect; from a browser in Sec-WebSocket-Protocol, as %s{token} or %s{token} beside %s", accessPrefix, reconnectPrefix, Subprotocol)
	}
	return c, nil
}

const secretBytes = 32

// A digest is what is kept of a reconnection token.
type digest [sha256.Size]byte

// newReconnectToken makes one for a session. It names the session, so that no index of tokens is needed.
func newReconnectToken(sessionID string) (token string, kept digest) {
	var secret [secretBytes]byte
	_, _ = rand.Read(secret[:]) // it never fails
	return sessionID + "." + base64.RawURLEncoding.EncodeToString(secret[:]), sha256.Sum256(secret[:])
}

// parseReconnectToken finds session and digest of a token; false for what is none. There is one way to write each.
func parseReconnectToken(token string) (sessionID string, d digest, ok bool) {
	sessionID, encoded, _ := strings.Cut(token, ".")
	id, err := uuid.Parse(sessionID)
	if err != nil || id.String() != sessionID {
		return "", d, false
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(secret) != secretBytes || base64.RawURLEncoding.EncodeToString(secret) != encoded {
		return "", d, false
	}
	return sessionID, sha256.Sum256(secret), true
}

func (d digest) is(other digest) bool { return subtle.ConstantTimeCompare(d[:], other[:]) == 1 }
