package eventstore

import (
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// MaxSubjectBytes is how long the name of a subject may be: that of any stream fits.
const MaxSubjectBytes = MaxCategoryBytes + 1 + MaxIDBytes

// Erase destroys the key of a subject: from then on the personal members of its events are null in every read, and listed in Recorded.Erased. In
// this process that is so at once, in others after Config.KeyCache at most. Events stay, with their versions and positions; snapshots that hold
// something of the subject cannot be read any more. What others made of the events, projections and copies, is theirs to make anew. False: the
// subject has no key, because nothing personal was appended since it was erased.
//
// An event of the subject that is appended later is encrypted with another key: who is to stay erased must not be written of again.
func (s *Store) Erase(ctx context.Context, subject string) (bool, error) {
	if err := checkSubject(subject); err != nil {
		return false, fmt.Errorf("eventstore: %w", err)
	}
	destroyed, err := s.keyring.keys.DestroyKey(ctx, subject)
	s.keyring.forget(subject) // also when it is not known whether it was
	if err != nil {
		return false, fmt.Errorf("eventstore: erase: %w", err)
	}
	return destroyed, nil
}

// Rewrap wraps all keys with the first master key that are wrapped with another one, or with none, and returns how many: then the others need not
// be configured any longer. It may be repeated after an error, and run while the log is used.
func (s *Store) Rewrap(ctx context.Context) (int, error) {
	if len(s.keyring.masters) == 0 {
		return 0, fmt.Errorf("eventstore: %w: there is no master key to wrap keys with", state.ErrUnsupported)
	}
	const page = 100
	for done := 0; ; {
		keys, err := s.keyring.keys.KeysUnderOther(ctx, s.keyring.masters[0].id, page)
		if err != nil {
			return done, fmt.Errorf("eventstore: rewrap: %w", err)
		}
		for _, key := range keys {
			secret, err := s.keyring.secret(key)
			if err != nil {
				return done, err
			}
			wrapped, err := s.keyring.wrap(key, secret)
			if err != nil {
				return done, err
			}
			if err := s.keyring.keys.Rewrap(ctx, wrapped, key.Master); err != nil {
				return done, fmt.Errorf("eventstore: rewrap: %w", err)
			}
			done++
		}
		if len(keys) < page {
			return done, nil
		}
	}
}

func checkSubject(subject string) error {
	if subject == "" || len(subject) > MaxSubjectBytes || !utf8.ValidString(subject) {
		return fmt.Errorf("%w: a subject is 1 to %d bytes of UTF-8", state.ErrInvalid, MaxSubjectBytes)
	}
	return nil
}
