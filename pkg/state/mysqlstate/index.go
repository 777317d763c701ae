package mysqlstate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

var _ sqlstate.IndexDialect = dialect{}

// An index is generated columns and a key over three of them: the kind of what is at the path, the number (of a boolean 0
// or 1), and the first keptBytes of a string. The columns are virtual: adding them changes no row, and the key is built while
// the table is read and written. Stores that share a table share the indexes of the same path.

// keptBytes is how much of a string an index keeps.
const keptBytes = 255

// The kinds for which an index knows nothing stand before those of scalars, which are their state.Rank: who reads an index
// from its beginning meets them first.
const (
	kindPassed = -2 // there is an array on the way
	kindArray  = -1
)

// composites are those kinds.
func composites(ix sqlstate.Index) []int {
	if len(ix.Path) == 1 {
		return []int{kindArray} // a value itself is no array to go into
	}
	return []int{kindPassed, kindArray}
}

func indexName(ix sqlstate.Index) string { return "ix_" + ix.Hash }

func columnName(ix sqlstate.Index, part string) string { return indexName(ix) + "_" + part }

// The terms of an index: its columns.
const (
	termKind = iota
	termNumber
	termText
	termBegin // of what few asks, up to the kind
	termEnd   // of it, up to what else is asked
)

func (t *table) terms(ix sqlstate.Index) []expr {
	kind := "e." + columnName(ix, "k")
	var others strings.Builder
	for _, k := range composites(ix) {
		others.WriteString(" OR " + kind + " = " + strconv.Itoa(k))
	}
	return []expr{
		{Text: kind}, {Text: "e." + columnName(ix, "n")}, {Text: "e." + columnName(ix, "s")},
		{Text: columns + ", " + kind + " < 0 FROM " + t.name + " e FORCE INDEX (" + indexName(ix) + ") WHERE e.store = ? AND ((" + kind + " = "},
		{Text: ")" + others.String() + ") AND " + live},
	}
}

func (dialect) Kept(ix sqlstate.Index, kind state.Rank) expr {
	if kind == state.RankString {
		return ix.Terms[termText]
	}
	return ix.Terms[termNumber]
}

// KeptNumber is a float. Beyond 2^53 several integers are the same one. A short literal without an exponent is
// read alike by everybody; another one is read by the server, as the stored ones are, and MySQL may be off in the last place.
func (dialect) KeptNumber(literal string) (expr, bool) {
	f, err := strconv.ParseFloat(literal, 64)
	exact := err == nil && math.Abs(f) < exactBelow
	if exact && len(literal) <= fewDigits && !strings.ContainsAny(literal, "eE") {
		return sqlstate.Bind(f), true
	}
	return sqlstate.SQL("(JSON_EXTRACT(@, '$') + 0e0)", sqlstate.Bind(literal)), exact
}

const fewDigits = 15

// KeptString is exact as long as there is room for more: what is kept whole of the operand differs from it otherwise.
func (dialect) KeptString(value string) (expr, bool) {
	return sqlstate.Bind([]byte(value[:min(len(value), keptBytes)])), len(value) < keptBytes
}

// A generated column is one of an index: what its name ends in, and how it is worked out.
type generated struct{ part, definition string }

// definitions are the columns of an index. The path cannot be bound here.
func definitions(ix sqlstate.Index, mariaDB bool) []generated {
	if mariaDB {
		return quickColumns(ix)
	}
	at := "JSON_EXTRACT(value, " + literal(ix.JSONPath()) + ")"
	return keyColumns(passed(ix, kindAt(at)),
		"CASE JSON_TYPE("+at+") WHEN 'INTEGER' THEN "+at+" + 0e0 WHEN 'UNSIGNED INTEGER' THEN "+at+" + 0e0 WHEN 'DOUBLE' THEN "+at+
			" + 0e0 WHEN 'DECIMAL' THEN "+at+" + 0e0 WHEN 'BOOLEAN' THEN CAST("+at+" AS BINARY) = 'true' END",
		"CASE JSON_TYPE("+at+") WHEN 'STRING' THEN "+keptOf("JSON_UNQUOTE("+at+")")+" END")
}

// keyColumns are those that the key is over.
func keyColumns(kind, number, text string) []generated {
	return []generated{{"k", "TINYINT GENERATED ALWAYS AS (" + kind + ")"}, {"n", "DOUBLE GENERATED ALWAYS AS (" + number + ")"},
		{"s", "VARBINARY(" + strconv.Itoa(keptBytes) + ") GENERATED ALWAYS AS (" + text + ")"}}
}

// kindAt is the kind of what is at a path.
func kindAt(at string) string {
	return "CASE JSON_TYPE(" + at + ") WHEN 'INTEGER' THEN 1 WHEN 'UNSIGNED INTEGER' THEN 1 WHEN 'DOUBLE' THEN 1 WHEN 'DECIMAL' THEN 1 WHEN 'STRING' THEN 2" +
		" WHEN 'OBJECT' THEN 3 WHEN 'ARRAY' THEN " + strconv.Itoa(kindArray) + " WHEN 'BOOLEAN' THEN 5 ELSE 0 END"
}

func keptOf(text string) string {
	return "LEFT(CAST(" + text + " AS BINARY), " + strconv.Itoa(keptBytes) + ")"
}

// passed is the kind where there may be arrays on the way.
func passed(ix sqlstate.Index, kind string) string {
	var b strings.Builder
	for _, path := range ix.Passed() {
		b.WriteString(" WHEN JSON_TYPE(JSON_EXTRACT(value, " + literal(path) + ")) = 'ARRAY' THEN " + strconv.Itoa(kindPassed))
	}
	if b.Len() == 0 {
		return kind
	}
	return "CASE" + b.String() + " ELSE " + kind + " END"
}

// literal spells a path for the servers, where a backslash in a string escapes.
func literal(path string) string { return sqlstate.Literal(strings.ReplaceAll(path, `\`, `\\`)) }

// quickColumns are those of MariaDB, which works virtual columns out again for each row that it reads, not only for those that
// are written. Its JSON_EXTRACT reads a value to the end, whereas JSON_VALUE and JSON_CONTAINS stop at the path. So what
// JSON_VALUE finds is a column of its own, and the others are made of it. It is NULL for what is no scalar, for null and for "",
// and 1 or 0 for booleans. It does not tell a number from a string: as JSON, a number is what the value has at the path,
// and the text of a string is not.
func quickColumns(ix sqlstate.Index) []generated {
	path, v, k := literal(ix.JSONPath()), columnName(ix, "v"), columnName(ix, "k")
	at := "JSON_EXTRACT(value, " + path + ")"
	kind := "CASE WHEN " + v + " IS NULL THEN CASE WHEN JSON_EXISTS(value, " + path + ") THEN " + kindAt(at) + " ELSE " + passed(ix, "0") + " END" +
		" WHEN " + v + " >= ':' THEN 2" + // no number begins so
		" WHEN LENGTH(" + v + ") >= " + strconv.Itoa(keptBytes) + " THEN " + kindAt(at) +
		" WHEN JSON_VALID(" + v + ") AND JSON_CONTAINS(value, " + v + ", " + path + ") THEN 1" +
		" WHEN " + v + " IN ('0', '1') THEN " + kindAt(at) + " ELSE 2 END"
	// A string that is beyond the range of a float is refused in a column; JSON that is, is not.
	number := "CASE " + k + " WHEN 1 THEN CASE WHEN LENGTH(" + v + ") < 20 AND " + v + " NOT LIKE '%e%' AND " + v + " NOT LIKE '%E%' THEN " + v + " + 0e0" +
		" ELSE " + at + " + 0e0 END WHEN 5 THEN CAST(" + at + " AS BINARY) = 'true' END"
	text := "CASE " + k + " WHEN 2 THEN CASE WHEN " + v + " IS NULL THEN " + keptOf("JSON_UNQUOTE("+at+")") + " ELSE " + keptOf(v) + " END END"
	found := generated{"v", "VARCHAR(" + strconv.Itoa(keptBytes) + ") CHARACTER SET utf8mb4 COLLATE utf8mb4_bin GENERATED ALWAYS AS" +
		" (LEFT(JSON_VALUE(value, " + path + "), " + strconv.Itoa(keptBytes) + "))"}
	return append([]generated{found}, keyColumns(kind, number, text)...)
}

// Indexed implements state.Indexer.
func (e *engine) Indexed() []string { return sqlstate.Names(e.indexed()) }

// indexed are the indexes of the store that are there.
func (e *engine) indexed() []sqlstate.Index {
	if all := e.indexes.Load(); all != nil {
		return *all
	}
	return nil
}

// indexer makes indexes of a table. It takes as long as the table is large, and so has connections beside the pool's, on which an answer may
// take longer than a read timeout: given up there, the server would go on, and this process would wait for its own lock.
func (d *Driver) indexer(t *table) func(context.Context, sqlstate.Index) error {
	return func(ctx context.Context, ix sqlstate.Index) (err error) {
		if _, err := t.prepared(ctx); err != nil {
			return err
		}
		there, err := exists(ctx, t.db, indexOf, t.name, indexName(ix))
		if err != nil || there {
			return err
		}
		db, err := d.patient()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		return t.createIndex(ctx, db, ix)
	}
}

// unlockWithin bounds an unlock, which no read timeout does. The connection's end unlocks too.
const unlockWithin = 5 * time.Second

// createIndex makes an index unless it is there. Of several processes one does it and the others wait, by a lock that the
// server drops with its connection. It is another lock than that of the migrations, which nobody holds for long.
func (t *table) createIndex(ctx context.Context, db *sql.DB, ix sqlstate.Index) (err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	const lock = "CONCAT('bannou:', SHA1(CONCAT(DATABASE(), '.', ?, '.indexes')))"
	var got sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK("+lock+", 30)", t.name).Scan(&got); err != nil {
		return err
	}
	if got.Int64 != 1 {
		return fmt.Errorf("%w: another process has been indexing table %s for 30 s", state.ErrUnavailable, t.name)
	}
	defer func() {
		unlocking, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockWithin)
		defer cancel()
		_, unlock := conn.ExecContext(unlocking, "DO RELEASE_LOCK("+lock+")", t.name)
		err = errors.Join(err, unlock)
	}()
	var version string
	if err := conn.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		return err
	}
	var missing []string
	for _, c := range definitions(ix, strings.Contains(version, "MariaDB")) {
		name := columnName(ix, c.part)
		there, err := exists(ctx, conn, "COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND COLUMN_NAME = ?", t.name, name)
		if err != nil {
			return err
		}
		if !there {
			missing = append(missing, "ADD COLUMN "+name+" "+c.definition+" VIRTUAL")
		}
	}
	if len(missing) > 0 {
		if _, err := conn.ExecContext(ctx, "ALTER TABLE "+t.name+" "+strings.Join(missing, ", ")+", ALGORITHM=INSTANT"); err != nil {
			return err
		}
	}
	there, err := exists(ctx, conn, indexOf, t.name, indexName(ix))
	if err != nil || there {
		return err
	}
	_, err = conn.ExecContext(ctx, "ALTER TABLE "+t.name+" ADD INDEX "+indexName(ix)+" (store, "+columnName(ix, "k")+", "+columnName(ix, "n")+", "+
		columnName(ix, "s")+"), ALGORITHM=INPLACE, LOCK=NONE")
	return err
}

// indexOf asks for an index by table and name.
const indexOf = "STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND INDEX_NAME = ?"

// exists asks a connection, or a pool.
func exists(ctx context.Context, of interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}, what string, args ...any) (bool, error) {
	var n int
	err := of.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema."+what, args...).Scan(&n)
	return n > 0, err
}
