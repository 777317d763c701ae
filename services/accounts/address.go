package accounts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/mail"
	"strings"
	"unicode"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/problem"
)

const maxEmailBytes = 254 // RFC 5321, 4.5.3.1.3: a path of 256 with its brackets

// checkEmail accepts one bare address, as somebody@example.org.
func checkEmail(member, email string) error {
	if len(email) > maxEmailBytes {
		return problem.Invalid(member, "has %d bytes, at most %d are allowed", len(email), maxEmailBytes)
	}
	parsed, err := mail.ParseAddress(email)
	if err != nil || parsed.Address != email || parsed.Name != "" || strings.ContainsFunc(email, unicode.IsControl) {
		return problem.Invalid(member, "is no e-mail address: write it as somebody@example.org")
	}
	return nil
}

// addressStream is the stream of an address. Its name does not tell the address to who reads the log, unless he guesses it.
func addressStream(email string) eventstore.StreamID {
	digest := sha256.Sum256([]byte(strings.ToLower(email)))
	return eventstore.StreamID{Category: addressCategory, ID: hex.EncodeToString(digest[:])}
}

// An address is what its stream says of it.
type address struct {
	stream  eventstore.StreamID
	version int64
	holder  string // empty: nobody has it
}

// address reads who has an e-mail address.
func (s *Service) address(ctx context.Context, email string) (address, error) {
	a := address{stream: addressStream(email)}
	for e, err := range s.cfg.Log.ReadStream(ctx, a.stream, eventstore.ReadOptions{Backward: true, Limit: 1}) {
		if err != nil {
			return address{}, err
		}
		event, err := s.types.Decode(e)
		if err != nil {
			return address{}, err
		}
		a.version = e.Version
		if r, is := event.(reserved); is {
			a.holder = r.AccountID
		}
	}
	return a, nil
}

// part is the append that changes who has the address, made only if nobody else changed that.
func (s *Service) part(a address, event any) (appending, error) {
	return s.appending(a.stream, a.version, event)
}

// take gives an address to an account, if it is free.
func (s *Service) take(ctx context.Context, email, accountID string) (appending, error) {
	a, err := s.address(ctx, email)
	if err != nil {
		return appending{}, err
	}
	if a.holder != "" {
		return appending{}, problem.New(problem.Conflict, "member email: another account has this address").At("email")
	}
	return s.part(a, reserved{AccountID: accountID})
}

// release frees the address of an account. Parts is empty when the account does not have it.
func (s *Service) release(ctx context.Context, email, accountID string) (parts []appending, err error) {
	if email == "" {
		return nil, nil
	}
	a, err := s.address(ctx, email)
	if err != nil || a.holder != accountID {
		return nil, err
	}
	p, err := s.part(a, released{})
	if err != nil {
		return nil, err
	}
	return []appending{p}, nil
}
