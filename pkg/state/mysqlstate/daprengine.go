package mysqlstate

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/daprrows"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// A daprEngine is a store in Dapr's rows: those whose ids begin with its prefix. Dapr's own processes may read and write them at the same
// time; each side refuses an ETag that was read before the other's write.
type daprEngine struct {
	table        *daprTable
	store        string
	prefix       string // app||
	gathering    *sqlstate.Gathering[write]
	announcement *announcement // nil: none

	begin   func(work func(ctx context.Context)) bool // until the driver is closed; false: it is
	patient func() (*sql.DB, error)                   // for what takes longer than a read timeout

	mu      sync.Mutex
	looked  bool     // the rows are such that they can be used
	looking *looking // under way; nil: nobody looks
}

// looking is one look at the rows, for all who wait for it.
type looking struct {
	done chan struct{}
	err  error // once done
}

var (
	_ state.Engine    = (*daprEngine)(nil)
	_ state.Querier   = (*daprEngine)(nil)
	_ state.Scanner   = (*daprEngine)(nil)
	_ state.Inspector = (*daprEngine)(nil)
)

// daprColumns are those of a record, in the order of daprRecord.
const daprColumns = "id, value, isbinary, eTag, insertDate, updateDate, expiredate"

// ready looks at the table and, once, at the store's rows: it refuses those of actors, and those that Dapr has encrypted.
func (e *daprEngine) ready(ctx context.Context) (*daprForm, error) {
	f, err := e.table.form(ctx)
	if err != nil {
		return nil, err
	}
	look, err := e.look(f)
	if err != nil || look == nil {
		return f, err
	}
	select {
	case <-look.done:
		return f, look.err
	case <-ctx.Done():
		return nil, unavailable(ctx, ctx.Err())
	}
}

// look is the look at the rows that is under way, begun if none is; nil: they were found to be usable. It goes on when who began it gives up: of many rows
// it may take longer than anybody waits.
func (e *daprEngine) look(f *daprForm) (*looking, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.looked || e.looking != nil {
		return e.looking, nil
	}
	look := &looking{done: make(chan struct{})}
	begun := e.begin(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, longestLook)
		defer cancel()
		look.err = e.lookAt(ctx, f)
		e.mu.Lock()
		e.looked, e.looking = look.err == nil, nil
		e.mu.Unlock()
		close(look.done)
	})
	if !begun {
		return nil, errClosed
	}
	e.looking = look
	return look, nil
}

// longestLook bounds a look. All callers wait for the one that is under way, so a server that went silent over it keeps them from another for as long.
const longestLook = 3 * time.Minute

// How many rows are looked at for such that are encrypted. A component encrypts all that it writes, and later ones are refused when they
// are read.
const rowsLookedAt = 1000

// Inspect implements state.Inspector: all ids are compared with those of actors, and as many values as limit says with ciphertexts.
func (e *daprEngine) Inspect(ctx context.Context, limit int) error {
	f, err := e.table.look(ctx, false) // who only looks makes nothing
	if err == nil && f != nil {
		err = e.refuse(ctx, e.table.db, f, limit)
	}
	if err != nil {
		return e.failure(ctx, err)
	}
	return nil
}

// lookAt looks on a connection of its own: given up at a read timeout, the server would go on, and the next look begin anew.
func (e *daprEngine) lookAt(ctx context.Context, f *daprForm) (err error) {
	db, err := e.patient()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return e.refuse(ctx, db, f, rowsLookedAt)
}

func (e *daprEngine) refuse(ctx context.Context, db *sql.DB, f *daprForm, limit int) error {
	own := e.own(f)
	after := sqlstate.Bind(utf8.RuneCountInString(e.prefix) + 1)
	// What this driver wrote last, by the version of its ETag, is no actor's.
	actor, err := first(ctx, db, sqlstate.SQL(e.table.sql("SELECT id FROM {table} WHERE @ AND SUBSTRING(id, @) LIKE '%||%||%' AND SUBSTRING(eTag, 15, 1) <> '8' LIMIT 1"), own, after))
	if err != nil {
		return failure(ctx, err, reading)
	}
	if actor != "" {
		return fmt.Errorf("%w: the row %q of table %s is %s", state.ErrInvalid, actor, e.table.name, daprrows.NoActors)
	}
	secret, err := first(ctx, db, sqlstate.SQL(e.table.sql(fmt.Sprintf("SELECT id FROM (SELECT id, CONVERT(FROM_BASE64(JSON_UNQUOTE(value)) USING utf8mb4) AS v FROM {table} WHERE @ AND isbinary = 1 LIMIT %d) e"+
		" WHERE v REGEXP '^[A-Za-z0-9+/]{38,}={0,2}[|][|][^|\"]+$' LIMIT 1", limit)), own))
	if err != nil {
		return failure(ctx, err, reading)
	}
	if secret != "" {
		return fmt.Errorf("%w: the row %q of table %s is encrypted by Dapr: %s", state.ErrInvalid, secret, e.table.name, daprrows.DecryptFirst)
	}
	return nil
}

// first is the one text of the first row, or empty.
func first(ctx context.Context, db *sql.DB, query expr) (found string, err error) {
	err = sqlstate.ReadOnce(ctx, db, query.Text, query.Args, func(row []driver.Value) error {
		found = sqlstate.Text(row[0])
		return nil
	})
	return found, err
}

func (e *daprEngine) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	var found []state.Record
	err := e.ofKeys(ctx, keys, daprColumns, func(row []driver.Value) error {
		record, err := e.record(row)
		if slices.Contains(keys, record.Key) { // the table may take one key for another, which is not asked for
			found = append(found, record)
			return err
		}
		return nil
	})
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	return sqlstate.InOrder(keys, found), nil
}

func (e *daprEngine) Exists(ctx context.Context, keys []string) ([]bool, error) {
	present, err := sqlstate.Present(keys, func(row func([]driver.Value) error) error {
		return e.ofKeys(ctx, keys, "id", func(values []driver.Value) error {
			return row([]driver.Value{strings.TrimPrefix(sqlstate.Text(values[0]), e.prefix)})
		})
	})
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	return present, nil
}

// ofKeys selects the columns of the rows of keys.
func (e *daprEngine) ofKeys(ctx context.Context, keys []string, what string, row func([]driver.Value) error) error {
	if _, err := e.ready(ctx); err != nil {
		return err
	}
	text := e.table.sql("SELECT " + what + " FROM {table} WHERE ")
	if len(keys) == 1 {
		return sqlstate.Read(ctx, e.table.db, text+"id = ? AND "+daprLive, []any{e.prefix + keys[0]}, row)
	}
	if len(keys) == 0 {
		return nil
	}
	query := sqlstate.SQL(text+"id IN (@) AND "+daprLive, sqlstate.Binds(e.ids(keys)))
	return sqlstate.ReadOnce(ctx, e.table.db, query.Text, query.Args, row)
}

func (e *daprEngine) ids(keys []string) []string {
	ids := make([]string, len(keys))
	for i, key := range keys {
		ids[i] = e.prefix + key
	}
	return ids
}

// record is a row of daprColumns.
func (e *daprEngine) record(row []driver.Value) (state.Record, error) {
	key, etag := strings.TrimPrefix(sqlstate.Text(row[0]), e.prefix), sqlstate.Text(row[3])
	binary, _ := row[2].(int64)
	created, ok1 := row[4].(time.Time)
	updated, ok2 := row[5].(time.Time)
	expires, ok3 := row[6].(time.Time)
	if !ok1 || !ok2 || !ok3 && row[6] != nil {
		return state.Record{Key: key}, fmt.Errorf("%w: the row of key %q has columns of other types than Dapr's table", state.ErrCorrupt, key)
	}
	value, err := daprValue{text: sqlstate.Text(row[1]), binary: binary != 0}.read(key, e.table.made.Load().mariaDB)
	return state.Record{Found: true, Key: key, Value: value, ETag: etag, Version: versionOf(etag), CreatedAt: created, UpdatedAt: updated, ExpiresAt: expires}, err
}

// rows is the store's rows as filters ask for them, named e: key and value, and the columns of a record. What is no JSON is not among them.
func (e *daprEngine) rows(f *daprForm) expr {
	return sqlstate.SQL(e.table.sql("(SELECT CONVERT(SUBSTRING(id, @) USING utf8mb4) COLLATE "+f.exact+" AS `key`,"+
		" IF(isbinary, CONVERT(FROM_BASE64(JSON_UNQUOTE(value)) USING utf8mb4), CAST(value AS CHAR)) AS value, id, value AS kept, isbinary, eTag, insertDate, updateDate, expiredate"+
		" FROM {table} WHERE @ AND "+daprLive+") e"),
		sqlstate.Bind(utf8.RuneCountInString(e.prefix)+1), e.own(f))
}

// own is the condition that a row is the store's. Where ids are compared by code point it is a range of the primary key: "||" and "|}" lie side
// by side. Otherwise all rows are looked at. (LIKE would not do: MariaDB's range for it ends before the characters of four bytes.)
func (e *daprEngine) own(f *daprForm) expr {
	if f.collated == f.exact {
		return sqlstate.SQL("id >= @ AND id < @", sqlstate.Bind(e.prefix), sqlstate.Bind(e.prefix[:len(e.prefix)-1]+"}"))
	}
	return sqlstate.SQL("CAST(LEFT(id, @) AS BINARY) = CAST(@ AS BINARY)", sqlstate.Bind(utf8.RuneCountInString(e.prefix)), sqlstate.Bind([]byte(e.prefix)))
}

// matching is the rows that a filter matches.
func (e *daprEngine) matching(ctx context.Context, filter state.Filter) (expr, error) {
	f, err := e.ready(ctx)
	if err != nil {
		return expr{}, e.failure(ctx, err)
	}
	matches, err := sqlstate.Where(dialect{}, document(), filter)
	return sqlstate.SQL("@ WHERE JSON_VALID(e.value) AND (@)", e.rows(f), matches), err
}

// Query evaluates the query on the server, which reads all rows of the store: Dapr's table has no other index.
func (e *daprEngine) Query(ctx context.Context, q state.Query) ([]state.Record, error) {
	from, err := e.matching(ctx, q.Filter)
	if err != nil {
		return nil, err
	}
	order, err := sqlstate.OrderBy(q.Sort, "e.`key`", func(path []string) []expr { return sqlstate.OrderAt(dialect{}, document(), path) })
	if err != nil {
		return nil, err
	}
	if q.After != nil {
		after, err := sqlstate.After(dialect{}, document(), q.Sort, "e.`key`", q.After)
		if err != nil {
			return nil, err
		}
		from = sqlstate.SQL("@ AND @", from, after)
	}
	limit := int64(math.MaxInt64)
	if q.Limit > 0 {
		limit = int64(q.Limit)
	}
	query := sqlstate.SQL("e.id, e.kept, e.isbinary, e.eTag, e.insertDate, e.updateDate, e.expiredate FROM @ ORDER BY @ LIMIT @ OFFSET @", from, order, sqlstate.Bind(limit), sqlstate.Bind(q.Offset))
	var records []state.Record
	err = sqlstate.ReadOnce(ctx, e.table.db, selectWithin(ctx)+query.Text, query.Args, func(row []driver.Value) error {
		record, err := e.record(row)
		records = append(records, record)
		return err
	})
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	return records, nil
}

// Count evaluates the filter on the server.
func (e *daprEngine) Count(ctx context.Context, filter state.Filter) (int64, error) {
	from, err := e.matching(ctx, filter)
	if err != nil {
		return 0, err
	}
	return e.count(ctx, from)
}

// Len implements state.Engine.
func (e *daprEngine) Len(ctx context.Context) (int64, error) {
	f, err := e.ready(ctx)
	if err != nil {
		return 0, e.failure(ctx, err)
	}
	return e.count(ctx, e.rows(f))
}

func (e *daprEngine) count(ctx context.Context, from expr) (int64, error) {
	query := sqlstate.SQL("COUNT(*) FROM @", from)
	n, err := sqlstate.CountOf(func(row func([]driver.Value) error) error {
		return sqlstate.ReadOnce(ctx, e.table.db, selectWithin(ctx)+query.Text, query.Args, row)
	})
	if err != nil {
		return 0, e.failure(ctx, err)
	}
	return n, nil
}

// Scan implements state.Scanner, in the order of the keys. A cursor is the last key of the answer before it.
func (e *daprEngine) Scan(ctx context.Context, cursor string, limit int) ([]string, string, error) {
	f, err := e.ready(ctx)
	if err != nil {
		return nil, "", e.failure(ctx, err)
	}
	query := sqlstate.SQL("SELECT e.`key` FROM @ WHERE e.`key` > @ ORDER BY e.`key` LIMIT @", e.rows(f), sqlstate.Bind(cursor), sqlstate.Bind(limit))
	if f.collated == f.exact { // the primary key has them in this order
		query = sqlstate.SQL(e.table.sql("SELECT SUBSTRING(id, @) FROM {table} WHERE @ AND id > @ AND "+daprLive+" ORDER BY id LIMIT @"),
			sqlstate.Bind(utf8.RuneCountInString(e.prefix)+1), e.own(f), sqlstate.Bind(e.prefix+cursor), sqlstate.Bind(limit))
	}
	rows, err := e.table.db.QueryContext(ctx, query.Text, query.Args...) //nolint:rowserrcheck // KeysOf asks for it
	if err != nil {
		return nil, "", e.failure(ctx, err)
	}
	keys, next, err := sqlstate.KeysOf(rows, limit)
	if err != nil {
		return nil, "", e.failure(ctx, err)
	}
	return keys, next, nil
}

// failure is what went wrong with a read.
func (e *daprEngine) failure(ctx context.Context, err error) error {
	return fmt.Errorf("store %q: %w", e.store, failure(ctx, err, reading))
}

// foreignKey is a key that the table takes for another one, which is there.
func (e *daprEngine) foreignKey(asked, there, collation string) error {
	return fmt.Errorf("%w: key %q: Dapr's table takes it for %q, which is there: its column id is compared by %s; change that to a collation that tells them apart, or the key",
		state.ErrInvalid, asked, there, collation)
}
