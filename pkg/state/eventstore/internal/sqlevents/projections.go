package sqlevents

import (
	"context"
	"database/sql"
	"errors"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

func (l *log) Projections(ctx context.Context, name string) (entries map[string][]byte, err error) {
	err = l.db.Read(ctx, func(db *sql.DB) (err error) {
		entries = map[string][]byte{}
		text, args := "SELECT name, entry FROM {t}_projections", []any(nil)
		if name != "" {
			text, args = text+" WHERE name = ?", []any{name}
		}
		rows, err := db.QueryContext(ctx, l.sql(text), args...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			var name string
			var entry []byte
			if err := rows.Scan(&name, &entry); err != nil {
				return err
			}
			entries[name] = entry
		}
		return rows.Err()
	})
	return entries, err
}

func (l *log) ChangeProjection(ctx context.Context, name string, fn func(w eventstore.Within, current []byte) ([]byte, error)) error {
	return l.verdict(ctx, func(tx *sql.Tx) (refused, err error) {
		w := &step{log: l, tx: tx}
		current, err := w.entry(ctx, name, l.dialect.Lock)
		if err != nil {
			return nil, err
		}
		changed, err := fn(w, current)
		switch {
		case err != nil && w.failed != nil:
			return nil, w.failed // of the engine, which knows what to do
		case err != nil:
			return err, nil
		case changed == nil:
			_, err = tx.ExecContext(ctx, l.sql("DELETE FROM {t}_projections WHERE name = ?"), name)
		case current == nil:
			_, err = tx.ExecContext(ctx, l.sql("INSERT INTO {t}_projections (name, entry) VALUES (?, ?)"), name, changed)
		default:
			_, err = tx.ExecContext(ctx, l.sql("UPDATE {t}_projections SET entry = ? WHERE name = ?"), changed, name)
		}
		return nil, err
	})
}

func (l *log) Inline(fn func(ctx context.Context, w eventstore.Within) error) { l.inline.Store(&fn) }

// project has the projections changed that are to change with each append. Refused is what they say against it.
func (l *log) project(ctx context.Context, tx *sql.Tx) (refused, err error) {
	w := &step{log: l, tx: tx}
	if refused = (*l.inline.Load())(ctx, w); w.failed != nil {
		return nil, w.failed
	}
	return refused, nil
}

func (l *log) isInline() bool {
	fn := l.inline.Load()
	return fn != nil && *fn != nil
}

func (l *log) Within(tx *sql.Tx) eventstore.Within { return &step{log: l, tx: tx} }

func (l *log) Define(ctx context.Context, statements ...string) error {
	for _, statement := range statements {
		err := l.db.Write(ctx, func(db *sql.DB) error {
			_, err := db.ExecContext(ctx, statement)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// A step is a transaction of the log's database.
type step struct {
	log    *log
	tx     *sql.Tx
	failed error // what the database said last, if that was an error
}

func (s *step) note(err error) error {
	if err != nil {
		s.failed = err
	}
	return err
}

func (s *step) Tx() *sql.Tx { return s.tx }

func (s *step) Projection(ctx context.Context, name string) ([]byte, error) {
	return s.entry(ctx, name, s.log.dialect.Share)
}

func (s *step) entry(ctx context.Context, name, lock string) (entry []byte, err error) {
	err = s.tx.QueryRowContext(ctx, s.log.sql("SELECT entry FROM {t}_projections WHERE name = ?"+lock), name).Scan(&entry)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return entry, s.note(err)
}

func (s *step) Read(ctx context.Context, r eventstore.Range) (events []eventstore.Recorded, more bool, err error) {
	if events, more, err = s.rows(ctx, r); err != nil {
		return nil, false, err
	}
	return s.log.unarchive(ctx, s.reading, events, more)
}

func (s *step) SubjectKeys(ctx context.Context, ids []string) ([]eventstore.SubjectKey, error) {
	return s.log.subjectKeys(ctx, s.reading, ids)
}

func (s *step) Destroyed(ctx context.Context) (int64, error) {
	n, err := s.log.destroyed(ctx, s.tx)
	return n, s.note(err)
}

func (s *step) rows(ctx context.Context, r eventstore.Range) (events []eventstore.Recorded, more bool, err error) {
	text, args := s.log.query(r)
	rows, err := s.tx.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, false, s.note(err)
	}
	defer func() { err = errors.Join(err, s.note(rows.Close())) }()
	scanner := newScanner(rows)
	for rows.Next() {
		if scanner.size > pageBytes {
			return events, true, nil
		}
		events = append(events, eventstore.Recorded{})
		if err := scanner.event(&events[len(events)-1]); err != nil {
			return nil, false, err
		}
	}
	return events, len(events) == r.Limit, s.note(rows.Err())
}

func (s *step) Position(ctx context.Context, subscription string) (position int64, begun bool, err error) {
	err = s.tx.QueryRowContext(ctx, s.log.sql("SELECT position FROM {t}_positions WHERE name = ? AND part = 0"+s.log.dialect.Lock), subscription).Scan(&position)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return position, err == nil, s.note(err)
}

func (s *step) Seize(ctx context.Context, subscription string, position int64) error {
	result, err := s.tx.ExecContext(ctx, s.log.sql("UPDATE {t}_positions SET position = ?, token = token + 1, consumer = '', until = 0 WHERE name = ? AND part = 0"),
		position, subscription)
	if err != nil {
		return s.note(err)
	}
	if n, err := result.RowsAffected(); err != nil || n > 0 {
		return s.note(err)
	}
	_, err = s.tx.ExecContext(ctx, s.log.sql("INSERT INTO {t}_positions (name, part, parts, position, token, consumer, until) VALUES (?, 0, 1, ?, 1, '', 0)"),
		subscription, position)
	return s.note(err)
}

func (s *step) Parked(ctx context.Context, subscription string) (n int, err error) {
	err = s.tx.QueryRowContext(ctx, s.log.sql("SELECT COUNT(*) FROM {t}_parked WHERE name = ?"), subscription).Scan(&n)
	return n, s.note(err)
}

func (s *step) Forget(ctx context.Context, subscription string) error {
	for _, table := range []string{"_positions", "_parked", "_consumers"} {
		if _, err := s.tx.ExecContext(ctx, s.log.sql("DELETE FROM {t}"+table+" WHERE name = ?"), subscription); err != nil {
			return s.note(err)
		}
	}
	return nil
}
