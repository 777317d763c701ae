package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// beginMirror has the nodes carry what they change, and waits until they all do. If changes were lost track of, it returns the ETag of the
// note that says so, for settled.
func (m *Migration) beginMirror(ctx context.Context) (note string, err error) {
	if err := m.patiently(ctx, m.mirror); err != nil {
		return "", err
	}
	if !wait(ctx, pause) { // also where the phase is an old one: whoever began it may have been interrupted
		return "", context.Cause(ctx)
	}
	var dirty bool
	err = m.patiently(ctx, func(ctx context.Context) (err error) {
		dirty, note, err = m.from.dirty(ctx)
		return err
	})
	if err != nil || !dirty {
		return "", err
	}
	return note, m.cleanse(ctx, m.from, Mirror)
}

// mirror begins the phase mirror if it comes next. What an earlier comparison has found does not count from then on.
func (m *Migration) mirror(ctx context.Context) error {
	r, _, err := m.current(ctx)
	switch {
	case err != nil:
		return err
	case r.Closing:
		return fmt.Errorf("%w: the decision about the store was being moved; finish that with --cut-over, or go back with --back", ErrPhase)
	case r.Phase == Target:
		return fmt.Errorf("%w: %s decides already, and is carried back to %s; end that with --finish, or go back with --back", ErrPhase, m.to.name, m.from.name)
	case r.Phase == Done:
		return fmt.Errorf("%w: the store was migrated from %s to %s; a migration back goes the other way round: --from %s --to %s",
			ErrPhase, m.from.name, m.to.name, m.to.name, m.from.name)
	}
	mark, err := m.checkpoint(ctx)
	if err == nil && mark.Compare {
		mark.Compare = false
		err = m.setCheckpoint(ctx, mark)
	}
	if err != nil {
		return err
	}
	if r.Phase != Mirror {
		if err := m.mayWrite(ctx, r); err != nil {
			return err
		}
		if err := m.turn(ctx, m.from, Mirror); err != nil {
			return err
		}
	}
	return retire(ctx, m.from, m.to)
}

// mayWrite refuses a new place that has keys, unless a migration has brought them there.
func (m *Migration) mayWrite(ctx context.Context, r record) error {
	_, own, _, err := newest(ctx, m.from, m.to)
	if err != nil || m.o.Overwrite || own.Epoch > 0 && own.Epoch == r.Epoch {
		return err
	}
	for cursor := ""; ; {
		keys, next, err := m.to.engine.Scan(ctx, cursor, 1)
		if err != nil {
			return err
		}
		if len(keys) > 0 {
			return fmt.Errorf("%w: %s has keys that this migration has not brought there, such as %q; give --overwrite to have them replaced or deleted",
				ErrNotEmpty, m.to.name, keys[0])
		}
		if cursor = next; cursor == "" {
			return nil
		}
	}
}

// current is the record that counts and the ETag of the record on the side that decides.
func (m *Migration) current(ctx context.Context) (record, string, error) {
	r, _, _, err := newest(ctx, m.from, m.to)
	if err != nil {
		return r, "", err
	}
	_, etag, err := m.decides(r.Phase).record(ctx)
	return r, etag, err
}

// turn begins a phase in which the same side decides. Within the pause every node goes by it.
func (m *Migration) turn(ctx context.Context, s *side, p Phase) error {
	r, etag, err := m.current(ctx)
	if err != nil {
		return err
	}
	_, err = s.setRecord(ctx, m.next(r, p, false), etag)
	return err
}

func (m *Migration) next(r record, p Phase, closing bool) record {
	return record{Epoch: r.Epoch + 1, Phase: p, Closing: closing, From: m.from.where, To: m.to.where}
}

// cleanse begins an epoch in which nothing has been lost track of yet. A comparison has to follow it, and settled.
func (m *Migration) cleanse(ctx context.Context, s *side, p Phase) error {
	if err := m.patiently(ctx, func(ctx context.Context) error { return m.turn(ctx, s, p) }); err != nil {
		return err
	}
	if !wait(ctx, pause) {
		return context.Cause(ctx)
	}
	return nil
}

// settled takes the note away that a comparison was needed, after it was made. A note that a node has renewed since, as it has lost track
// of changes again, stays: another comparison is needed.
func (m *Migration) settled(ctx context.Context, s *side, note string) error {
	return m.patiently(ctx, func(ctx context.Context) error {
		err := s.dirt.TryDelete(ctx, s.key("dirty"), note)
		if errors.Is(err, state.ErrConflict) || errors.Is(err, state.ErrNotFound) {
			return nil
		}
		return err
	})
}

// CutOver moves the decision to the new place. Writes wait, from the moment that nodes learn of it, for the lease and for as long as it
// takes to carry what has been changed and not been carried yet; reads go on. From then on changes are carried to the old place.
//
// The copy must have been made and compared.
func (m *Migration) CutOver(ctx context.Context) error {
	return m.locked(ctx, func(ctx context.Context) error {
		r, err := m.phase(ctx)
		if err != nil {
			return err
		}
		if r.Phase == Target && r.Closing { // on the way back, which was interrupted
			return m.reopen(ctx, m.to, Target)
		}
		if r.Phase == Target {
			return nil
		}
		if r.Phase != Mirror {
			return fmt.Errorf("%w: the phase is %s; copy the store first", ErrPhase, r.Phase)
		}
		mark, err := m.checkpoint(ctx)
		if err != nil {
			return err
		}
		if !mark.Compare {
			return fmt.Errorf("%w: the copy is not complete, or was not found to be the same; copy again first", ErrPhase)
		}
		return m.move(ctx, m.from, Mirror, Target)
	})
}

// Back moves the decision back to the old place, as CutOver moves it to the new one, and returns to the phase mirror; or, in the phase
// mirror, it ends the migration: nothing is carried any more, and the new place stays as it is. It returns the phase that it has brought.
func (m *Migration) Back(ctx context.Context) (Phase, error) {
	phase := Mirror
	err := m.locked(ctx, func(ctx context.Context) error {
		r, err := m.phase(ctx)
		switch {
		case err != nil:
			return err
		case r.Phase == Mirror && r.Closing:
			return m.reopen(ctx, m.from, Mirror)
		case r.Phase == Target:
			return m.move(ctx, m.to, Target, Mirror)
		case r.Phase == Mirror:
			phase = Source
			if err := m.patiently(ctx, func(ctx context.Context) error { return m.turn(ctx, m.from, Source) }); err != nil {
				return err
			}
			if !wait(ctx, pause) {
				return context.Cause(ctx)
			}
			return m.patiently(ctx, func(ctx context.Context) error {
				return errors.Join(m.forget(ctx, m.from), m.setCheckpoint(ctx, checkpoint{To: m.to.where}))
			})
		default:
			return fmt.Errorf("%w: the phase is %s, and there is no way back from it", ErrPhase, r.Phase)
		}
	})
	return phase, err
}

// Finish ends the migration: the new place decides, and nothing is carried back any more.
func (m *Migration) Finish(ctx context.Context) error {
	return m.locked(ctx, func(ctx context.Context) error {
		r, err := m.phase(ctx)
		switch {
		case err != nil:
			return err
		case r.Phase == Done:
			return nil
		case r.Phase != Target || r.Closing:
			return fmt.Errorf("%w: the phase is %s; %s must decide before this, which is what --cut-over brings about", ErrPhase, r.Phase, m.to.name)
		}
		if err := m.patiently(ctx, func(ctx context.Context) error { return m.turn(ctx, m.to, Done) }); err != nil {
			return err
		}
		if !wait(ctx, pause) {
			return context.Cause(ctx)
		}
		return m.patiently(ctx, func(ctx context.Context) error {
			return errors.Join(m.forget(ctx, m.to), m.setCheckpoint(ctx, checkpoint{To: m.to.where}))
		})
	})
}

func (m *Migration) phase(ctx context.Context) (r record, err error) {
	err = m.patiently(ctx, func(ctx context.Context) (err error) {
		r, _, err = m.current(ctx)
		return err
	})
	return r, err
}

// move moves the decision from one side to the other. What was interrupted in the pause goes on from there.
//
// The other side is sealed first, so that no hand but this one's can give the decision away; as long as that was not tried, the side
// decides again by its own record alone, whatever has become of the other one.
func (m *Migration) move(ctx context.Context, s *side, before, after Phase) error {
	if err := m.settle(ctx, s, before); err != nil {
		return err
	}
	sealed, closed, err := m.close(ctx, s, before)
	if err != nil {
		return m.abandon(ctx, s, before, closed, err)
	}
	tried := false
	if !wait(ctx, pause) {
		err = context.Cause(ctx)
	} else {
		err = m.inTime(ctx, s, func(ctx context.Context) error {
			if err := m.drain(ctx, s); err != nil {
				return err
			}
			if err := m.patiently(ctx, func(ctx context.Context) error { return m.clean(ctx, s) }); err != nil {
				return err
			}
			return m.hand(ctx, s, after, sealed, &tried)
		})
	}
	if err == nil {
		return nil
	}
	if tried {
		closed = record{}
	}
	return m.abandon(ctx, s, before, closed, err)
}

// close seals the other side and has changes wait. It returns the ETag of the other side's record, and the one that it has tried to write, after
// the seal. That is written anew if it closes already: whoever has written it must not open it any more.
func (m *Migration) close(ctx context.Context, s *side, p Phase) (sealed string, closed record, err error) {
	err = m.inTime(ctx, s, func(ctx context.Context) error {
		return m.patiently(ctx, func(ctx context.Context) (err error) {
			if sealed, err = m.seal(ctx, m.other(s)); err != nil {
				return err
			}
			r, etag, err := m.current(ctx)
			if err == nil {
				closed = m.next(r, p, true)
				_, err = s.setRecord(ctx, closed, etag)
			}
			return err
		})
	})
	return sealed, closed, err
}

// clean reports changes that were neither carried nor noted. In the pause none are made, so none come later.
func (m *Migration) clean(ctx context.Context, s *side) error {
	dirty, _, err := s.dirty(ctx)
	if err == nil && dirty {
		err = fmt.Errorf("%w: a node has changed more than it could note as the decision was about to move; it stays where it was, and no change is lost: do it again", ErrDirty)
	}
	return err
}

// settle carries, while the store is in use, what has been lost track of.
func (m *Migration) settle(ctx context.Context, s *side, p Phase) error {
	for range rounds {
		var dirty, closing bool
		var note string
		err := m.patiently(ctx, func(ctx context.Context) (err error) {
			r, _, err := m.current(ctx)
			if err != nil {
				return err
			}
			closing = r.Closing
			dirty, note, err = s.dirty(ctx)
			return err
		})
		if err != nil || !dirty {
			return err
		}
		if closing {
			if err := m.reopen(ctx, s, p); err != nil {
				return err
			}
		}
		if err := m.cleanse(ctx, s, p); err != nil {
			return err
		}
		found, err := m.agree(ctx, s, m.other(s))
		if err != nil {
			return err
		}
		if found.Different > 0 {
			return fmt.Errorf("%w: %d keys of %s are not the same in %s, such as %q: %s", ErrRefused, found.Different, s.name, m.other(s).name,
				found.Differences[0].Key, found.Differences[0].What)
		}
		if err := m.settled(ctx, s, note); err != nil {
			return err
		}
	}
	return m.patiently(ctx, func(ctx context.Context) error { return m.clean(ctx, s) })
}

// seal changes the ETag of a side's record, and nothing else, so that nobody who is late can hand the decision over by it.
func (m *Migration) seal(ctx context.Context, s *side) (string, error) {
	r, etag, err := s.record(ctx)
	if err != nil {
		return "", err
	}
	return s.setRecord(ctx, r, etag)
}

// inTime does something while changes wait, and gives up when they have waited for too long: one process that was stopped in the midst of a
// transaction can keep others from its rows for as long as it likes, and a place can be away for as long.
func (m *Migration) inTime(ctx context.Context, s *side, do func(context.Context) error) error {
	short, cancel := context.WithTimeout(ctx, m.o.MaxPause)
	defer cancel()
	err := do(short)
	if err != nil && short.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: what was changed last could not be carried to %s, and the decision moved, within %s; no change is lost: do it again: %w",
			ErrPause, m.other(s).name, m.o.MaxPause, err)
	}
	return err
}

// drain carries what was noted and not carried. No node writes any more.
func (m *Migration) drain(ctx context.Context, s *side) error {
	c := m.carrier(ctx, s, m.other(s))
	c.always = true
	size := batchKeys
	var keys int64
	return m.patiently(ctx, func(ctx context.Context) error {
		return s.intents(ctx, func(page []intent) error {
			changed := keysOf(page)
			refused, err := m.carryAll(ctx, c, changed, &size)
			if err != nil {
				return err
			}
			if len(refused) > 0 {
				return refusedError(m.other(s), refused)
			}
			names := make([]string, len(page))
			for i, in := range page {
				names[i] = in.name
			}
			keys += int64(len(changed))
			m.o.Report(Progress{Step: "carry", Keys: keys})
			return s.withdraw(ctx, names)
		})
	})
}

// hand gives the decision to the other side. Its record is what does it; the one here only says so to those who look here first.
// What is tried may come true after no answer came.
func (m *Migration) hand(ctx context.Context, s *side, p Phase, sealed string, tried *bool) error {
	other := m.other(s)
	var handed record
	err := m.patiently(ctx, func(ctx context.Context) error {
		r, _, _, err := newest(ctx, m.from, m.to)
		if err != nil {
			return err
		}
		if r.Phase == p { // by a try whose answer did not come
			handed = r
			return nil
		}
		if !r.Closing {
			return fmt.Errorf("%w: somebody else has moved the decision meanwhile", ErrPhase)
		}
		handed, *tried = m.next(r, p, false), true
		_, err = other.setRecord(ctx, handed, sealed)
		return err
	})
	if err != nil {
		return err
	}
	r, etag, err := s.record(ctx)
	if err == nil && r.Epoch < handed.Epoch {
		_, err = s.setRecord(ctx, handed, etag)
	}
	if err != nil { // nodes that know of the closing read both
		m.o.Report(Progress{Note: "the decision has moved; the old record still says that it is about to: " + err.Error()})
	}
	return nil
}

// abandon lets the side decide again that did before, after a move that failed; also when ctx has ended, for a while. With the
// record that closed, nothing was handed over, and the other side is not asked.
func (m *Migration) abandon(ctx context.Context, s *side, p Phase, closed record, cause error) error {
	if errors.Is(context.Cause(ctx), state.ErrLockLost) {
		return cause // it is another's to do, or this one's with the lock
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	waits := true
	err := m.patiently(ctx, func(ctx context.Context) error {
		r, etag, err := s.record(ctx)
		if err != nil {
			return err
		}
		if waits = r.Closing; waits && r == closed {
			waits = false
			_, err = s.setRecord(ctx, m.next(r, p, false), etag)
		}
		return err
	})
	if err == nil && waits {
		err = m.reopen(ctx, s, p)
	}
	if err != nil {
		return fmt.Errorf("%w; and writes wait until this is done again, as the pause could not be ended: %w", cause, err)
	}
	return cause
}

// reopen ends a pause: the side decides as before.
func (m *Migration) reopen(ctx context.Context, s *side, p Phase) error {
	return m.patiently(ctx, func(ctx context.Context) error {
		if _, err := m.seal(ctx, m.other(s)); err != nil {
			return err
		}
		r, etag, err := m.current(ctx)
		if err != nil || !r.Closing {
			return err
		}
		_, err = s.setRecord(ctx, m.next(r, p, false), etag)
		return err
	})
}

// forget takes the notes of changes away that are no longer carried.
func (m *Migration) forget(ctx context.Context, s *side) error {
	var names []string
	if err := s.intents(ctx, func(page []intent) error {
		for _, in := range page {
			names = append(names, in.name)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := s.withdraw(ctx, names); err != nil {
		return err
	}
	_, err := s.dirt.Delete(ctx, s.key("dirty"))
	return err
}
