package projection

import (
	"context"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// clean removes what is left of versions that are dropped, as far as this process can.
func (s *Set) clean(entries map[string][]byte) {
	for name, data := range entries {
		e, err := decode(data)
		if err != nil {
			s.warn("a projection cannot be read", name, err)
			continue
		}
		for _, v := range e.Versions {
			if v.Phase != Dropping {
				continue
			}
			if err := s.remove(s.ctx, name, v); err != nil {
				s.warn("a version cannot be dropped, and will be tried again", Version{name, v.Number}.String(), err)
			}
		}
	}
}

// remove removes a version's data, and then that there was one. It may be done again from its beginning, and by several at once. Where the version
// is still followed it does nothing yet.
func (s *Set) remove(ctx context.Context, name string, v version) error {
	of := Version{name, v.Number}
	d := s.definitions[name][v.Shape.Revision]
	if v.Shape.Elsewhere && d == nil {
		return nil // somebody else can
	}
	for _, t := range v.Shape.Tables {
		if err := s.engine.Define(ctx, "DROP TABLE IF EXISTS "+of.Table(t)); err != nil {
			return err
		}
	}
	if d != nil && d.Into != nil {
		// What its follower has in work would be saved behind the removal: so the version's lease is taken first. A follower gives it back soon.
		claim := eventstore.Claim{Name: of.Subscription(), Parts: 1, Consumer: "dropping", Lives: s.cfg.Lease}
		if _, claimed, err := s.engine.Claim(ctx, claim); err != nil || !claimed {
			return err
		}
		if err := d.Into.drop(ctx, s.log, d.Category, of); err != nil {
			return err
		}
	}
	return change(ctx, s.engine, name, func(w eventstore.Within, e *entry) error {
		if e.find(v.Number) == nil {
			return errUnchanged
		}
		e.remove(v.Number)
		return w.Forget(ctx, of.Subscription())
	})
}
