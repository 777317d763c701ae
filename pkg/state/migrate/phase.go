package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A Phase says where the decision is, and whether changes are carried to the other place.
type Phase string

// The phases of a migration, in their order.
const (
	Source Phase = "source" // the old place decides
	Mirror Phase = "mirror" // the old place decides, and changes are carried to the new one
	Target Phase = "target" // the new place decides, and changes are carried to the old one
	Done   Phase = "done"   // the new place decides
)

// carries reports whether changes are carried to the other place.
func (p Phase) carries() bool { return p == Mirror || p == Target }

// old reports whether the old place decides.
func (p Phase) old() bool { return p == Source || p == Mirror }

// Lease is how long a node serves a store after it has begun to read the phase, if it cannot read it again.
const Lease = 2 * time.Second

// pause is how long after a change of the phase no node goes by the one before any more: clocks of two machines do not run alike.
const pause = Lease + Lease/4

// A record is the phase as nodes read it. There is one on each side; the one with the higher epoch counts. A change of the decision
// begins with a record that closes, on the side that decides, and ends with one on the other side. So a node needs only the side that
// decides, unless that closes.
type record struct {
	Epoch   int64  `json:"epoch"` // counts changes
	Phase   Phase  `json:"phase"`
	Closing bool   `json:"closing,omitempty"` // nothing is changed: the decision is about to move
	From    string `json:"from"`
	To      string `json:"to"`
}

// dirt says that changes of an epoch were not carried, and not written down either.
type dirt struct {
	Epoch int64 `json:"epoch"`
}

func (s *side) key(name string) string { return s.role + "." + name }

// record reads the side's record, and its ETag. One that was never written is the phase source.
func (s *side) record(ctx context.Context) (record, string, error) {
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	entry, err := s.records.GetWithETag(ctx, s.key("record"))
	if errors.Is(err, state.ErrNotFound) {
		return record{Phase: Source}, "", nil
	}
	if err != nil {
		return record{}, "", fmt.Errorf("the phase of the migration cannot be read from %s: %w", s.name, err)
	}
	return entry.Value, entry.ETag, nil
}

// setRecord writes the side's record if it still has the ETag, and returns the new one. When no answer comes, it looks.
func (s *side) setRecord(ctx context.Context, r record, etag string) (string, error) {
	short, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	written, err := s.records.TrySave(short, s.key("record"), r, etag)
	if errors.Is(err, state.ErrOutcomeUnknown) {
		is, now, readErr := s.record(ctx)
		switch {
		case readErr != nil:
			return "", readErr
		case now != etag && is == r:
			return now, nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("the phase of the migration cannot be written to %s: %w", s.name, err)
	}
	return written, nil
}

// newest is the record that counts.
func newest(ctx context.Context, from, to *side) (record, error) {
	a, _, err := from.record(ctx)
	if err != nil {
		return record{}, err
	}
	b, _, err := to.record(ctx)
	if err != nil {
		return record{}, err
	}
	if b.Epoch > a.Epoch {
		a = b
	}
	return a, a.check(from, to)
}

// check refuses the record of another migration.
func (r record) check(from, to *side) error {
	if r.Epoch > 0 && (r.From != from.where || r.To != to.where) {
		return fmt.Errorf("%w: the store is being migrated from %s to %s, and not from %s to %s", ErrOtherMigration, r.From, r.To, from.where, to.where)
	}
	return nil
}

// ErrOtherMigration reports that a store is migrated, or was, from or to another place than the one asked for.
var ErrOtherMigration = errors.New("another migration of the store")
