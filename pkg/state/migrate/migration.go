package migrate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// batchKeys is how many keys are looked at together at most; fewer where the values are large.
const batchKeys = 500

// batchBytes is how many bytes of values are aimed at.
const batchBytes = 2 << 20

// lockTTL is how long a migration that was killed keeps others out.
const lockTTL = 5 * time.Second

// What callers can tell apart.
var (
	// ErrNotEmpty reports keys in the new place that no migration has brought there.
	ErrNotEmpty = errors.New("there are keys in the new place already")

	// ErrRunning reports that another process migrates the store.
	ErrRunning = errors.New("another process migrates the store")

	// ErrPhase reports that what was asked for does not come next.
	ErrPhase = errors.New("not in this phase")

	// ErrPause reports that changes would have had to wait for too long for the decision to move.
	ErrPause = errors.New("changes have waited for too long")

	// ErrDirty reports that more was changed than could be noted, so that both places have to be compared.
	ErrDirty = errors.New("a comparison is needed")

	// ErrRefused reports keys that the other place does not take.
	ErrRefused = errors.New("not every key could be copied")
)

// A Runner is the process that migrates a store.
type Runner struct {
	Host  string    `json:"host"`
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
}

// checkpoint is how far the copy has come.
type checkpoint struct {
	To      string `json:"to"`
	Cursor  string `json:"cursor"`
	Keys    int64  `json:"keys"`
	Total   int64  `json:"total"`
	Copied  bool   `json:"copied"`  // all of it
	Compare bool   `json:"compare"` // and then found to be the same
}

// Progress tells how far something is.
type Progress struct {
	Step  string // "copy", "compare", "carry"
	Keys  int64
	Total int64  // as counted at the start; 0: not known
	Note  string // why it does not go on, if it does not
}

// Options are the choices of a Migration.
type Options struct {
	From, To Place

	// Overwrite allows keys in the new place that no migration has brought there. They are replaced, or deleted where the old place
	// does not have them.
	Overwrite bool

	// MaxPause is how long changes may wait, beyond the lease, while the decision moves. After that it stays where it was. Default: 10 s.
	MaxPause time.Duration

	// Differences is how many keys that differ are listed. Default: 20.
	Differences int

	// Report hears of the progress. Default: nobody does.
	Report func(Progress)
}

// A Migration is what an operator does to migrate a store. One at a time works on a store, by a lock that is kept where the store is.
// What was interrupted, at any moment, is gone on with by doing it again.
type Migration struct {
	from, to *side
	o        Options
}

// Open opens both places. Servers that are away show later.
func Open(ctx context.Context, o Options) (*Migration, error) {
	if o.Differences == 0 {
		o.Differences = 20
	}
	if o.MaxPause == 0 {
		o.MaxPause = 10 * time.Second
	}
	if o.Report == nil {
		o.Report = func(Progress) {}
	}
	from, to, err := openSides(ctx, o.From, o.To)
	if err != nil {
		return nil, err
	}
	return &Migration{from: from, to: to, o: o}, nil
}

// A Status is what is known of a migration.
type Status struct {
	Phase   Phase   `json:"phase"`
	Closing bool    `json:"closing"` // the decision was about to move when whoever moved it was interrupted, or is at it
	Keys    int64   `json:"keys"`    // copied
	Total   int64   `json:"total"`
	Copied  bool    `json:"copied"`  // all of it, and found to be the same
	Waiting int64   `json:"waiting"` // keys that are to be carried to the other place
	Dirty   bool    `json:"dirty"`   // changes were not carried and not noted: a comparison is needed
	Runner  *Runner `json:"runner,omitempty"`
}

// Status reads how far the migration is.
func (m *Migration) Status(ctx context.Context) (Status, error) {
	r, _, _, err := newest(ctx, m.from, m.to)
	if err != nil {
		return Status{}, err
	}
	st := Status{Phase: r.Phase, Closing: r.Closing}
	mark, err := m.checkpoint(ctx)
	if err != nil {
		return st, err
	}
	st.Keys, st.Total, st.Copied = mark.Keys, mark.Total, mark.Compare
	decides := m.decides(r.Phase)
	if st.Dirty, _, err = decides.dirty(ctx); err != nil {
		return st, err
	}
	if err := decides.intents(ctx, func(page []intent) error {
		st.Waiting += int64(len(keysOf(page)))
		return nil
	}); err != nil {
		return st, err
	}
	runner, err := m.from.runners.Get(ctx, m.from.key("runner"))
	if err == nil {
		st.Runner = &runner
	} else if !errors.Is(err, state.ErrNotFound) {
		return st, err
	}
	return st, nil
}

func (m *Migration) decides(p Phase) *side {
	if p.old() {
		return m.from
	}
	return m.to
}

func (m *Migration) other(s *side) *side {
	if s == m.from {
		return m.to
	}
	return m.from
}

// dirty reports whether changes were neither carried nor noted, with the ETag of the note that says so.
func (s *side) dirty(ctx context.Context) (bool, string, error) {
	entry, err := s.dirt.GetWithETag(ctx, s.key("dirty"))
	if errors.Is(err, state.ErrNotFound) {
		return false, "", nil
	}
	return err == nil, entry.ETag, err
}

func (m *Migration) checkpoint(ctx context.Context) (checkpoint, error) {
	mark, err := m.from.marks.Get(ctx, m.from.key("checkpoint"))
	if errors.Is(err, state.ErrNotFound) || err == nil && mark.To != m.to.where {
		return checkpoint{To: m.to.where}, nil
	}
	return mark, err
}

func (m *Migration) setCheckpoint(ctx context.Context, mark checkpoint) error {
	_, err := m.from.marks.Save(ctx, m.from.key("checkpoint"), mark)
	return err
}

// locked runs work while no other process migrates the store. If the lock is lost, as when the old place was away for longer than it
// lasts, it is taken again and the work done again.
func (m *Migration) locked(ctx context.Context, work func(context.Context) error) error {
	for {
		lost, err := m.lockedOnce(ctx, work)
		if !lost || ctx.Err() != nil {
			return err
		}
		m.o.Report(Progress{Note: err.Error()})
	}
}

func (m *Migration) lockedOnce(ctx context.Context, work func(context.Context) error) (lost bool, err error) {
	lock, err := state.OpenLock(ctx, m.from.factory, m.from.notes, "migrate", state.LockOptions{TTL: lockTTL})
	if err != nil {
		return false, err
	}
	hold, err := m.acquire(ctx, lock)
	if err != nil {
		return false, err
	}
	held, cancel := context.WithCancelCause(hold.Context()) // it ends with the lock, and when the caller wants it to
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	runner := m.from.key("runner")
	defer func() {
		over, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
		defer cancel()
		if hold.Context().Err() == nil {
			_, _ = m.from.runners.Delete(over, runner) // it says who it was; the lock says that it is over
		}
		_ = hold.Release(over) // it ends by itself
	}()
	host, _ := os.Hostname()                                  // only for people to read
	err = m.patiently(held, func(ctx context.Context) error { //nolint:contextcheck // the lock's context, which ends with the caller's
		_, err := m.from.runners.Save(ctx, runner, Runner{Host: host, PID: os.Getpid(), Since: time.Now().UTC()})
		return err
	})
	if err == nil {
		err = work(held) //nolint:contextcheck // as above
	}
	return err != nil && errors.Is(context.Cause(held), state.ErrLockLost), err //nolint:contextcheck // why the lock's ended
}

// acquire waits for as long as one who was killed may keep the lock.
func (m *Migration) acquire(ctx context.Context, lock *state.Lock) (*state.Hold, error) {
	var hold *state.Hold
	err := m.patiently(ctx, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, lockTTL+time.Second)
		defer cancel()
		hold, err = lock.Acquire(ctx)
		if errors.Is(err, state.ErrLocked) {
			return m.running(ctx, err)
		}
		return err
	})
	return hold, err
}

// running says who has the lock.
func (m *Migration) running(ctx context.Context, locked error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	runner, err := m.from.runners.Get(ctx, m.from.key("runner"))
	if err != nil {
		return fmt.Errorf("%w (%v)", ErrRunning, locked) //nolint:errorlint // who it is cannot be told
	}
	return fmt.Errorf("%w: process %d on %s, since %s; wait until it has ended, or end it", ErrRunning, runner.PID, runner.Host, runner.Since.Format(time.RFC3339))
}

// passing reports an error that may be gone when it is tried again.
func passing(err error) bool {
	return !errors.Is(err, ErrRunning) &&
		(errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrOutcomeUnknown) || errors.Is(err, context.DeadlineExceeded))
}

// patiently does something until it is done, while the only hindrance is that a place is away.
func (m *Migration) patiently(ctx context.Context, do func(context.Context) error) error {
	for delay := 50 * time.Millisecond; ; delay = min(2*delay, 2*time.Second) {
		err := do(ctx)
		if err == nil || !passing(err) {
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		m.o.Report(Progress{Note: "it will be tried again: " + err.Error()})
		if !wait(ctx, delay) {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}
