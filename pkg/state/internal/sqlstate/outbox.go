package sqlstate

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// OutboxTable is the name of the table of all outboxes, and the stem of the others' names.
const OutboxTable = "outbox"

// An OutboxEngine is what the outboxes of the SQL engines differ in.
type OutboxEngine struct {
	// Transact runs fn in one transaction, again from its beginning where the engine calls that normal. What fn changed is
	// on disk when it returns nil.
	Transact func(ctx context.Context, fn func(tx *sql.Tx) error) error
	// Read runs fn outside a transaction.
	Read func(ctx context.Context, fn func(db *sql.DB) error) error
	// Own is as in InboxEngine.
	Own func(err error) bool
	// Room says why there is no room for so many bytes more. Nil: there is as long as the engine takes them.
	Room func(bytes int64) error
	// Now is the SQL expression for the microseconds since 1970, by the clock that all processes share.
	Now string
	// Beside is set where a transaction can run while a caller has another one.
	Beside bool
	// Workers own the goroutines that add for several callers.
	Workers *Workers
}

// NewOutbox returns the outbox of that name. Its tables are there when Transact and Read run.
//
// Every change begins with the row of the outbox in the table outbox_turn, and so waits for the one before: ids are given
// in the order of commits, a claim sees all that was added before, and the counts are exact.
func NewOutbox(engine OutboxEngine, cfg state.OutboxConfig) state.Outbox {
	o := &outbox{engine: engine, cfg: cfg}
	o.gathering = Gathering[addition]{
		Alone:    func(ctx context.Context, call *Call[addition]) error { return o.add(ctx, []*Call[addition]{call}) },
		Together: o.add,
		Lanes:    1, // one transaction at a time has its turn
		Workers:  engine.Workers,
	}
	return o
}

type outbox struct {
	engine    OutboxEngine
	cfg       state.OutboxConfig
	gathering Gathering[addition]
	known     atomic.Bool // its row is there
}

// An addition is what one caller adds.
type addition struct {
	entries []state.OutboxEntry
	size    int64
}

// A turn is the row of an outbox in outbox_turn, held by a transaction.
type turn struct {
	last, entries, bytes int64
	now                  int64 // microseconds since 1970
}

// change runs fn when it is this transaction's turn.
func (o *outbox) change(ctx context.Context, fn func(tx *sql.Tx, t *turn) error) error {
	return o.engine.Transact(ctx, func(tx *sql.Tx) error {
		if err := o.takeTurn(ctx, tx); err != nil {
			return err
		}
		t := new(turn)
		query := SQL("SELECT last_id, entries, bytes, @ FROM outbox_turn WHERE name = @", Expr{Text: o.engine.Now}, Bind(o.cfg.Name))
		row := tx.QueryRowContext(ctx, query.Text, query.Args...)
		if err := row.Scan(&t.last, &t.entries, &t.bytes, &t.now); err != nil {
			return err
		}
		return fn(tx, t)
	})
}

// takeTurn locks the row of the outbox, which it makes at first.
func (o *outbox) takeTurn(ctx context.Context, tx *sql.Tx) error {
	result, err := tx.ExecContext(ctx, "UPDATE outbox_turn SET turns = turns + 1 WHERE name = ?", o.cfg.Name)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n > 0 {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO outbox_turn (name, turns, last_id, entries, bytes, parked) VALUES (?, 1, 0, 0, 0, 0)", o.cfg.Name)
	return err
}

func (o *outbox) failure(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("outbox %q: cannot %s: %w", o.cfg.Name, what, err)
}

func (o *outbox) Enqueue(ctx context.Context, entries ...state.OutboxEntry) error {
	size := int64(0)
	own := slices.Clone(entries)
	for i := range entries {
		if err := checkEntry(&entries[i]); err != nil {
			return o.failure(adding, err)
		}
		own[i].Properties, own[i].Body = bytes.Clone(entries[i].Properties), bytes.Clone(entries[i].Body)
		size += entries[i].Size()
	}
	_, err := o.gathering.Do(ctx, addition{entries: own, size: size}, size)
	return o.failure(adding, err)
}

const adding = "add entries"

// add adds what several callers gave, in their order, in one transaction; for each, all or nothing.
func (o *outbox) add(ctx context.Context, calls []*Call[addition]) error {
	if o.engine.Room != nil {
		total := int64(0)
		for _, call := range calls {
			total += call.Ask.size
		}
		if err := o.engine.Room(total); err != nil {
			return err
		}
	}
	return o.change(ctx, func(tx *sql.Tx, t *turn) error {
		var added []*state.OutboxEntry
		size := int64(0)
		for _, call := range calls {
			call.Err = nil // it may be tried again from its beginning
			a := &call.Ask
			if t.entries+int64(len(added)+len(a.entries)) > o.cfg.MaxEntries || t.bytes+size+a.size > o.cfg.MaxBytes {
				call.Err = full(o.cfg, t.entries+int64(len(added)), t.bytes+size)
				continue
			}
			for i := range a.entries {
				added = append(added, &a.entries[i])
			}
			size += a.size
		}
		if err := o.insert(ctx, tx, t, added); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE outbox_turn SET last_id = last_id + ?, entries = entries + ?, bytes = bytes + ? WHERE name = ?",
			len(added), len(added), size, o.cfg.Name)
		return err
	})
}

func full(cfg state.OutboxConfig, entries, bytes int64) error {
	return fmt.Errorf("%w: %d events with %d bytes wait, at most %d with %d may", state.ErrFull, entries, bytes, cfg.MaxEntries, cfg.MaxBytes)
}

// insertRows and insertBytes bound one statement.
const (
	insertRows  = 64
	insertBytes = 1 << 20
)

const insertOutbox = "INSERT INTO outbox (name, id, partition_key, topic, properties, body, size, created_at, attempts) VALUES "

// insert adds the rows, many with one statement.
func (o *outbox) insert(ctx context.Context, tx *sql.Tx, t *turn, entries []*state.OutboxEntry) error {
	id := t.last
	for len(entries) > 0 {
		var args []any
		rows, size := 0, int64(0)
		for _, e := range entries {
			if size += e.Size(); rows == insertRows || rows > 0 && size > insertBytes {
				break
			}
			rows++
			id++
			args = append(args, o.cfg.Name, id, e.Key, e.Topic, string(e.Properties), notNil(e.Body), e.Size(), t.now)
		}
		entries = entries[rows:]
		const row = "(?, ?, ?, ?, ?, ?, ?, ?, 0)"
		text := insertOutbox + row + strings.Repeat(", "+row, rows-1) //nolint:gosec // question marks
		if _, err := tx.ExecContext(ctx, text, args...); err != nil {
			return err
		}
	}
	return nil
}

// notNil keeps an empty body from being NULL.
func notNil(body []byte) []byte {
	if body == nil {
		return []byte{}
	}
	return body
}

func (o *outbox) Claim(ctx context.Context, c state.OutboxClaim) (entries []state.OutboxEntry, err error) {
	if c.Owner == "" || len(c.Owner) > 64 || c.Lease <= 0 || c.MaxEntries <= 0 {
		return nil, o.failure("claim entries", fmt.Errorf("%w: a claim needs an owner of 1 to 64 bytes, a lease and a number", state.ErrInvalid))
	}
	err = o.change(ctx, func(tx *sql.Tx, t *turn) error {
		ids, err := o.free(ctx, tx, t, c)
		if err != nil || len(ids) == 0 {
			entries = nil
			return err
		}
		set := SQL("UPDATE outbox SET claimed_by = @, claimed_until = @, attempts = attempts + 1 WHERE name = @ AND id IN (@)",
			Bind(c.Owner), Bind(t.now+c.Lease.Microseconds()), Bind(o.cfg.Name), Binds(ids))
		if _, err := tx.ExecContext(ctx, set.Text, set.Args...); err != nil {
			return err
		}
		entries, err = o.read(ctx, tx, ids)
		return err
	})
	return entries, o.failure("claim entries", err)
}

// free returns the ids of the first entries that an owner may claim.
func (o *outbox) free(ctx context.Context, tx *sql.Tx, t *turn, c state.OutboxClaim) (_ []int64, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT o.id, o.size FROM outbox o WHERE o.name = ? AND o.parked_at IS NULL
		AND (o.claimed_by IS NULL OR o.claimed_by = ? OR o.claimed_until <= ?)
		AND (o.partition_key = '' OR NOT EXISTS (SELECT 1 FROM outbox c WHERE c.name = o.name
			AND c.partition_key = o.partition_key AND c.claimed_until > ? AND c.claimed_by <> ?))
		ORDER BY o.id LIMIT ?`, o.cfg.Name, c.Owner, t.now, t.now, c.Owner, c.MaxEntries)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var ids []int64
	total := int64(0)
	for rows.Next() {
		var id, size int64
		if err := rows.Scan(&id, &size); err != nil {
			return nil, err
		}
		if total += size; len(ids) > 0 && c.MaxBytes > 0 && total > c.MaxBytes {
			break
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

func (o *outbox) read(ctx context.Context, tx *sql.Tx, ids []int64) (_ []state.OutboxEntry, err error) {
	query := SQL("SELECT id, partition_key, topic, properties, body, created_at, attempts FROM outbox WHERE name = @ AND id IN (@) ORDER BY id",
		Bind(o.cfg.Name), Binds(ids))
	rows, err := tx.QueryContext(ctx, query.Text, query.Args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	entries := make([]state.OutboxEntry, 0, len(ids))
	for rows.Next() {
		var e state.OutboxEntry
		var created int64
		if err := rows.Scan(&e.ID, &e.Key, &e.Topic, &e.Properties, &e.Body, &created, &e.Attempts); err != nil {
			return nil, err
		}
		e.CreatedAt = time.UnixMicro(created).UTC()
		entries = append(entries, e)
	}
	return entries, rows.Err()
}

func (o *outbox) Release(ctx context.Context, owner string, ids ...int64) error {
	return inParts(ids, func(part []int64) error {
		return o.failure("release entries", o.change(ctx, func(tx *sql.Tx, _ *turn) error {
			set := SQL("UPDATE outbox SET claimed_by = NULL, claimed_until = NULL WHERE name = @ AND claimed_by = @ AND id IN (@)",
				Bind(o.cfg.Name), Bind(owner), Binds(part))
			_, err := tx.ExecContext(ctx, set.Text, set.Args...)
			return err
		}))
	})
}

func (o *outbox) Delete(ctx context.Context, owner string, ids ...int64) error {
	return inParts(ids, func(part []int64) error {
		return o.failure("delete entries", o.change(ctx, func(tx *sql.Tx, _ *turn) error {
			own := SQL("name = @ AND claimed_by = @ AND id IN (@)", Bind(o.cfg.Name), Bind(owner), Binds(part))
			if _, err := o.uncount(ctx, tx, own); err != nil {
				return err
			}
			remove := SQL("DELETE FROM outbox WHERE @", own)
			_, err := tx.ExecContext(ctx, remove.Text, remove.Args...)
			return err
		}))
	})
}

func (o *outbox) Park(ctx context.Context, owner string, id int64, reason string) error {
	return o.failure("park an entry", o.change(ctx, func(tx *sql.Tx, t *turn) error {
		own := SQL("name = @ AND claimed_by = @ AND id IN (@)", Bind(o.cfg.Name), Bind(owner), Bind(id))
		n, err := o.uncount(ctx, tx, own)
		if err != nil {
			return err
		}
		set := SQL("UPDATE outbox SET parked_at = @, failure = @, claimed_by = NULL, claimed_until = NULL WHERE @", Bind(t.now), Bind(reason), own)
		if _, err := tx.ExecContext(ctx, set.Text, set.Args...); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE outbox_turn SET parked = parked + ? WHERE name = ?", n, o.cfg.Name)
		return err
	}))
}

// uncount takes the entries of a condition out of the counts, and returns how many they are.
func (o *outbox) uncount(ctx context.Context, tx *sql.Tx, where Expr) (n int64, err error) {
	var size int64
	query := SQL("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM outbox WHERE @", where)
	row := tx.QueryRowContext(ctx, query.Text, query.Args...)
	if err := row.Scan(&n, &size); err != nil {
		return 0, err
	}
	_, err = tx.ExecContext(ctx, "UPDATE outbox_turn SET entries = entries - ?, bytes = bytes - ? WHERE name = ?", n, size, o.cfg.Name)
	return n, err
}

func (o *outbox) Keys(ctx context.Context, among []string) ([]string, error) {
	var waiting []string
	if among == nil {
		return o.keys(ctx, Expr{Text: "partition_key <> ''"})
	}
	err := inParts(among, func(part []string) error {
		found, err := o.keys(ctx, SQL("partition_key IN (@)", Binds(part)))
		waiting = append(waiting, found...)
		return err
	})
	return waiting, err
}

func (o *outbox) keys(ctx context.Context, where Expr) (keys []string, err error) {
	err = o.engine.Read(ctx, func(db *sql.DB) (err error) {
		query := SQL("SELECT DISTINCT partition_key FROM outbox WHERE name = @ AND parked_at IS NULL AND @", Bind(o.cfg.Name), where)
		rows, err := db.QueryContext(ctx, query.Text, query.Args...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			var key string
			if err := rows.Scan(&key); err != nil {
				return err
			}
			keys = append(keys, key)
		}
		return rows.Err()
	})
	return keys, o.failure("read the keys", err)
}

func (o *outbox) Stats(ctx context.Context) (s state.OutboxStats, err error) {
	err = o.engine.Read(ctx, func(db *sql.DB) error {
		row := db.QueryRowContext(ctx, "SELECT entries, bytes, parked FROM outbox_turn WHERE name = ?", o.cfg.Name)
		if err := row.Scan(&s.Depth, &s.Bytes, &s.Parked); err != nil {
			return ignoreNoRows(err)
		}
		var oldest int64
		row = db.QueryRowContext(ctx, "SELECT created_at FROM outbox WHERE name = ? AND parked_at IS NULL ORDER BY id LIMIT 1", o.cfg.Name)
		if err := row.Scan(&oldest); err != nil {
			return ignoreNoRows(err)
		}
		s.Oldest = time.UnixMicro(oldest).UTC()
		return nil
	})
	return s, o.failure("count", err)
}

func ignoreNoRows(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return err
}

// maxPart is how many values one statement binds at most.
const maxPart = 1000

// inParts calls fn with a few of the values at a time.
func inParts[T any](values []T, fn func(part []T) error) error {
	for part := range slices.Chunk(values, maxPart) {
		if err := fn(part); err != nil {
			return err
		}
	}
	return nil
}
