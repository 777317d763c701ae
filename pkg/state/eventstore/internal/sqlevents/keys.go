package sqlevents

import (
	"context"
	"database/sql"
	"errors"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

const keyColumns = "SELECT key_id, subject, master, wrapped FROM {t}_keys"

func (l *log) KeepKey(ctx context.Context, k eventstore.SubjectKey) (eventstore.SubjectKey, error) {
	id, err := binary(k.ID)
	if err != nil {
		return k, err
	}
	for {
		kept, err := l.keys(ctx, l.readers, sqlstate.SQL(l.sql(keyColumns+" WHERE subject = @"), sqlstate.Bind(k.Subject)))
		if err != nil || len(kept) > 0 {
			return append(kept, k)[0], err
		}
		insert := l.now(l.dialect.InsertNew + " INTO {t}_keys (key_id, subject, master, wrapped, created_at) VALUES (?, ?, ?, ?, @)")
		n, err := l.change(ctx, insert, id, k.Subject, k.Master, k.Wrapped)
		if err != nil || n > 0 { // else another was faster
			return k, err
		}
	}
}

func (l *log) SubjectKeys(ctx context.Context, ids []string) ([]eventstore.SubjectKey, error) {
	return l.subjectKeys(ctx, l.readers, ids)
}

func (l *log) subjectKeys(ctx context.Context, from source, ids []string) (all []eventstore.SubjectKey, err error) {
	for len(ids) > 0 {
		part := ids[:min(len(ids), 500)]
		ids = ids[len(part):]
		binds := make([]any, len(part))
		for i, id := range part {
			if binds[i], err = binary(id); err != nil {
				return nil, err
			}
		}
		found, err := l.keys(ctx, from, sqlstate.SQL(l.sql(keyColumns+" WHERE key_id IN (@)"), sqlstate.Binds(binds)))
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func (l *log) DestroyKey(ctx context.Context, subject string) (found bool, err error) {
	err = l.db.Transact(ctx, func(tx *sql.Tx) error {
		var id []byte
		err := tx.QueryRowContext(ctx, l.sql("SELECT key_id FROM {t}_keys WHERE subject = ?"+l.dialect.Lock), subject).Scan(&id)
		if found = err == nil; !found {
			if errors.Is(err, sql.ErrNoRows) {
				return nil
			}
			return err
		}
		if _, err := tx.ExecContext(ctx, l.now("INSERT INTO {t}_destroyed (key_id, destroyed_at) VALUES (?, @)"), id); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, l.sql("DELETE FROM {t}_keys WHERE key_id = ?"), id)
		return err
	})
	return found && err == nil, err
}

func (l *log) Destroyed(ctx context.Context) (n int64, err error) {
	err = l.readers(ctx, func(q querier) (err error) {
		n, err = l.destroyed(ctx, q)
		return err
	})
	return n, err
}

func (l *log) destroyed(ctx context.Context, from querier) (int64, error) {
	rows, err := from.QueryContext(ctx, l.sql("SELECT COUNT(*) FROM {t}_destroyed")) //nolint:rowserrcheck // Number does
	if err != nil {
		return 0, err
	}
	return sqlstate.Number(rows)
}

func (l *log) KeysUnderOther(ctx context.Context, master string, limit int) ([]eventstore.SubjectKey, error) {
	return l.keys(ctx, l.readers, sqlstate.SQL(l.sql(keyColumns+" WHERE master <> @ LIMIT @"), sqlstate.Bind(master), sqlstate.Bind(limit)))
}

func (l *log) Rewrap(ctx context.Context, k eventstore.SubjectKey, from string) error {
	id, err := binary(k.ID)
	if err != nil {
		return err
	}
	_, err = l.change(ctx, "UPDATE {t}_keys SET master = ?, wrapped = ? WHERE key_id = ? AND master = ?", k.Master, k.Wrapped, id, from)
	return err
}

// change makes one statement, and returns how many rows it was about.
func (l *log) change(ctx context.Context, text string, args ...any) (n int64, err error) {
	err = l.db.Write(ctx, func(db *sql.DB) error {
		result, err := db.ExecContext(ctx, l.sql(text), args...)
		if err != nil {
			return err
		}
		n, err = result.RowsAffected()
		return err
	})
	return n, err
}

func (l *log) keys(ctx context.Context, from source, query sqlstate.Expr) (all []eventstore.SubjectKey, err error) {
	err = from(ctx, func(q querier) (err error) {
		all = nil
		rows, err := q.QueryContext(ctx, query.Text, query.Args...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			var k eventstore.SubjectKey
			var id []byte
			if err := rows.Scan(&id, &k.Subject, &k.Master, &k.Wrapped); err != nil {
				return err
			}
			parsed, err := uuid.FromBytes(id)
			if err != nil {
				return err
			}
			k.ID = parsed.String()
			all = append(all, k)
		}
		return rows.Err()
	})
	return all, err
}
