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

// across is the side in a migration of the store that goes the other way. Where both places give the store one name, the notes of both
// directions are together.
func (s *side) across() *side {
	other := *s
	if other.role = "from"; s.role == "from" {
		other.role = "to"
	}
	return &other
}

// retire takes away what an earlier migration has left on the side, after another began that counts on from its epoch.
func (s *side) retire(ctx context.Context) error {
	_, err := s.records.Delete(ctx, s.key("record"))
	_, markErr := s.marks.Delete(ctx, s.key("checkpoint"))
	return errors.Join(err, markErr)
}

// later is the later one of a direction's records.
func later(ctx context.Context, from, to *side) (record, error) {
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
	return a, nil
}

// newest is the record that counts, and the epoch that the side which decides by it has in its own record. Epochs go on over both
// directions: a store that came back where it was is what its last migration made of it.
func newest(ctx context.Context, from, to *side) (r record, own int64, err error) {
	a, _, err := from.record(ctx)
	if err != nil {
		return record{}, 0, err
	}
	b, _, err := to.record(ctx)
	if err != nil {
		return record{}, 0, err
	}
	if r = a; b.Epoch > a.Epoch {
		r = b
	}
	if err := r.check(from, to); err != nil {
		return r, 0, err
	}
	back, err := later(ctx, to.across(), from.across())
	if err != nil {
		return record{}, 0, err
	}
	if back.Epoch > r.Epoch && back.check(to, from) == nil {
		switch {
		case back.Phase == Done:
			r = record{Epoch: back.Epoch, Phase: Source, From: from.where, To: to.where}
		case back.Phase != Source:
			return r, 0, fmt.Errorf("%w: the store is being migrated from %s to %s, and not from %s to %s", ErrOtherMigration, back.From, back.To, from.where, to.where)
		default: // it was begun and given up
			r.Epoch = back.Epoch
		}
	}
	if own = b.Epoch; r.Phase.old() {
		own = a.Epoch
	}
	return r, own, nil
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
