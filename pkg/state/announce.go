package state

import (
	"context"
	"errors"
	"fmt"
)

// Announce has every change of a store tell of itself in an outbox, in one transaction with the change: there is an entry
// for each change that was made, and none for one that was not, whatever dies meanwhile. Entries of one outbox key are in
// the order of their changes.
//
// The limits of the outbox are those of the changes: when it is full, a change is refused with ErrFull and nothing is
// changed. One that adds no entry, such as the delete of an absent key, is made.
type Announce struct {
	// Outbox is where the entries go; one of this name on each backend that has such stores. It may be opened
	// (Factory.Outbox) to send them.
	Outbox OutboxConfig

	// Entry makes the entry of a change. Ctx is that of the call. It runs within the transaction, for one change more than
	// once where the transaction has to be repeated, and must be quick and safe for concurrent use. Its error fails the
	// change: nothing is changed.
	Entry func(ctx context.Context, c Changed) (OutboxEntry, error)

	// Added is called after a change, by the goroutine that made it, with the backend whose outbox has a new entry, or may
	// have one. It must be quick and safe for concurrent use. Default: nobody is told.
	Added func(backend string)
}

func (a *Announce) check() error {
	switch {
	case a == nil:
		return nil
	case a.Entry == nil:
		return fmt.Errorf("%w: changes cannot be announced: Announce.Entry is not set", ErrInvalid)
	default:
		return a.Outbox.check()
	}
}

// An Announcer is an OutboxDriver whose engines add entries to an outbox in the transaction that makes a change.
type Announcer interface {
	OutboxDriver

	// OpenAnnouncing is Open. The engine's changes that have Announce are made together with the entry that it makes of
	// their outcome, in that outbox of the driver, or not at all; what is not made adds none. Over a limit of the outbox the
	// call fails with ErrFull and nothing was changed; a transaction that several callers share fails for none of them
	// because of the others. ErrUnsupported: not this store's; it is opened by Open, and its changes are told to OnChange.
	OpenAnnouncing(ctx context.Context, cfg StoreConfig, box OutboxConfig) (Engine, error)
}

// openEngine opens the engine, as one that announces where that is asked for and the driver can.
func (s *store) openEngine(ctx context.Context) (err error) {
	announce := s.factory.options.Announce
	driver, able := s.driver.(Announcer)
	if announce == nil || !s.cfg.PublishChanges || !able {
		s.engine, err = s.driver.Open(ctx, s.cfg)
		return err
	}
	s.engine, err = driver.OpenAnnouncing(ctx, s.cfg, announce.Outbox)
	if errors.Is(err, ErrUnsupported) {
		s.engine, err = s.driver.Open(ctx, s.cfg)
		return err
	}
	s.announce = announce
	return err
}

// announced has changes make their entries.
func (s *store) announced(ctx context.Context, changes []Change) {
	if s.announce == nil {
		return
	}
	for i := range changes {
		key, deleted := changes[i].Key, changes[i].Delete
		changes[i].Announce = func(o Outcome) (OutboxEntry, error) { return s.announce.Entry(ctx, s.event(key, deleted, o)) }
	}
}

// added tells that the outbox has, or after an error may have, a new entry.
func (s *store) added(err error) {
	if s.announce != nil && s.announce.Added != nil && (err == nil || errors.Is(err, ErrOutcomeUnknown)) {
		s.announce.Added(s.cfg.Backend)
	}
}
