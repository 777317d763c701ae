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

// across is the side in a migration of the store that goes the other way. Where both places keep their notes together, its record is the
// other side's.
func (s *side) across() *side {
	other := *s
	if other.role = "from"; s.role == "from" {
		other.role = "to"
	}
	return &other
}

// back reports whether a record, of a side or of one across, is of the migration that goes the other way.
func (r record) back(from, to *side, across bool) bool {
	if r.Epoch == 0 || r.From != to.where || r.To != from.where {
		return false
	}
	return across || from.where != to.where
}

// retire takes away what an earlier migration the other way has left, after this one began, which counts on from its epoch.
func retire(ctx context.Context, from, to *side) error {
	for _, s := range []*side{from, to} {
		for across, s := range []*side{s, s.across()} {
			r, etag, err := s.record(ctx)
			if err == nil && r.back(from, to, across == 1) {
				err = s.records.TryDelete(ctx, s.key("record"), etag)
			}
			if err != nil && !errors.Is(err, state.ErrNotFound) {
				return err
			}
		}
	}
	other := to.across()
	mark, err := other.marks.Get(ctx, other.key("checkpoint"))
	if err == nil && mark.To == from.where {
		_, err = other.marks.Delete(ctx, other.key("checkpoint"))
	}
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	return err
}

// newest is the record that counts, and the epoch that the side which decides by it has in its own record. Epochs go on over both
// directions: a store that came back where it was is what its last migration made of it. own is the last record of this direction.
func newest(ctx context.Context, from, to *side) (r, own record, epoch int64, err error) {
	var at [4]record
	own.Phase = Source
	var back, other record
	for i, s := range []*side{from, to, to.across(), from.across()} {
		if at[i], _, err = s.record(ctx); err != nil {
			return r, own, 0, err
		}
		switch {
		case at[i].back(from, to, i > 1):
			back = later(back, at[i])
		case i > 1:
		case at[i].check(from, to) != nil:
			other = later(other, at[i])
		default:
			own = later(own, at[i])
		}
	}
	if other.Epoch > own.Epoch {
		return other, own, 0, other.check(from, to)
	}
	if r = own; back.Epoch > own.Epoch {
		switch back.Phase {
		case Done:
			r = record{Epoch: back.Epoch, Phase: Source, From: from.where, To: to.where}
		case Source: // it was begun and given up
			r.Epoch = back.Epoch
		default:
			return r, own, 0, fmt.Errorf("%w: the store is being migrated from %s to %s, and not from %s to %s", ErrOtherMigration, back.From, back.To, from.where, to.where)
		}
	}
	if epoch = at[1].Epoch; r.Phase.old() {
		epoch = at[0].Epoch
	}
	return r, own, epoch, nil
}

func later(a, b record) record {
	if b.Epoch > a.Epoch {
		return b
	}
	return a
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
