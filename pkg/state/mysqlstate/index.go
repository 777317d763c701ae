package mysqlstate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

var _ sqlstate.IndexDialect = dialect{}

// An index is three generated columns and a key over them: the kind of what is at the path, the number (of a boolean 0 or
// 1), and the first keptBytes of a string. The columns are virtual: adding them changes no row, and the key is built while
// the table is read and written. Stores that share a table share the indexes of the same path.

// keptBytes is how much of a string an index keeps.
const keptBytes = 255

func indexName(ix sqlstate.Index) string { return "x_" + ix.Hash }

func columnName(ix sqlstate.Index, part string) string { return indexName(ix) + "_" + part }

// column is one of an index.
func column(ix sqlstate.Index, part string) expr { return expr{Text: "e." + columnName(ix, part)} }

func (dialect) Kept(ix sqlstate.Index, kind state.Rank) expr {
	if kind == state.RankString {
		return column(ix, "s")
	}
	return column(ix, "n")
}

// KeptNumber is a float. Beyond 2^53 several integers are the same one.
func (dialect) KeptNumber(literal string) (expr, bool) {
	f, err := strconv.ParseFloat(literal, 64)
	return sqlstate.SQL("(JSON_EXTRACT(@, '$') + 0e0)", sqlstate.Bind(literal)), err == nil && math.Abs(f) < exactBelow
}

// KeptString is exact as long as there is room for more: what is kept whole of the operand differs from it otherwise.
func (dialect) KeptString(value string) (expr, bool) {
	return sqlstate.Bind([]byte(value[:min(len(value), keptBytes)])), len(value) < keptBytes
}

// definitions are the columns of an index. The path cannot be bound here.
func definitions(ix sqlstate.Index, mariaDB bool) [3]string {
	of := plainColumns
	if mariaDB {
		of = quickColumns
	}
	kind, number, text := of(literal(ix.JSONPath()))
	var passed strings.Builder
	for _, path := range ix.Passed() {
		passed.WriteString(" WHEN JSON_TYPE(JSON_EXTRACT(value, " + literal(path) + ")) = 'ARRAY' THEN " + strconv.Itoa(sqlstate.KindPassed))
	}
	if passed.Len() > 0 {
		kind = "CASE" + passed.String() + " ELSE " + kind + " END"
	}
	return [3]string{
		columnName(ix, "k") + " TINYINT GENERATED ALWAYS AS (" + kind + ") VIRTUAL",
		columnName(ix, "n") + " DOUBLE GENERATED ALWAYS AS (" + number + ") VIRTUAL",
		columnName(ix, "s") + " VARBINARY(" + strconv.Itoa(keptBytes) + ") GENERATED ALWAYS AS (" + text + ") VIRTUAL",
	}
}

// literal spells a path for the servers, where a backslash in a string escapes.
func literal(path string) string { return sqlstate.Literal(strings.ReplaceAll(path, `\`, `\\`)) }

// plainColumns are what an index keeps of what is at a path, by the functions that MySQL and MariaDB have in common.
func plainColumns(path string) (kind, number, text string) {
	at := "JSON_EXTRACT(value, " + path + ")"
	kind = rankOf(expr{Text: "JSON_TYPE(" + at + ")"}).Text
	number = "CASE JSON_TYPE(" + at + ") WHEN 'INTEGER' THEN " + at + " + 0e0 WHEN 'UNSIGNED INTEGER' THEN " + at + " + 0e0 WHEN 'DOUBLE' THEN " + at +
		" + 0e0 WHEN 'DECIMAL' THEN " + at + " + 0e0 WHEN 'BOOLEAN' THEN CAST(" + at + " AS BINARY) = 'true' END"
	text = "CASE JSON_TYPE(" + at + ") WHEN 'STRING' THEN LEFT(CAST(JSON_UNQUOTE(" + at + ") AS BINARY), " + strconv.Itoa(keptBytes) + ") END"
	return kind, number, text
}

// quickColumns are the same for MariaDB, which works them out again for each row that it reads, not only for those that are
// written. Its JSON_EXTRACT reads a value to the end, whereas JSON_VALUE and JSON_CONTAINS stop at the path. JSON_VALUE
// does not tell a number from a string: as JSON, a number is what the value has at the path, and the text of a string is
// not. It is NULL for what is no scalar, for null and for "", and 1 or 0 for booleans; then the slow way is gone.
func quickColumns(path string) (kind, number, text string) {
	slowKind, slowNumber, slowText := plainColumns(path)
	at := "JSON_VALUE(value, " + path + ")"
	isNumber := "JSON_VALID(" + at + ") AND JSON_CONTAINS(value, " + at + ", " + path + ")"
	unclear := at + " IN ('0', '1')"
	kind = "CASE WHEN " + at + " IS NULL THEN " + slowKind + " WHEN " + isNumber + " THEN 1 WHEN " + unclear + " THEN " + slowKind + " ELSE 2 END"
	// A string that is beyond the range of a float is refused in a column; JSON that is, is not.
	plain := at + " NOT LIKE '%e%' AND " + at + " NOT LIKE '%E%' AND LENGTH(" + at + ") < 300"
	number = "CASE WHEN " + at + " IS NULL THEN NULL WHEN " + isNumber + " THEN CASE WHEN " + plain + " THEN " + at + " + 0e0 ELSE JSON_EXTRACT(value, " + path +
		") + 0e0 END WHEN " + unclear + " THEN " + slowNumber + " END"
	text = "CASE WHEN " + at + " IS NULL OR " + unclear + " THEN " + slowText + " WHEN " + isNumber + " THEN NULL ELSE LEFT(CAST(" + at + " AS BINARY), " +
		strconv.Itoa(keptBytes) + ") END"
	return kind, number, text
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

// createIndex makes an index unless it is there. Of several processes one does it and the others wait, by a lock that the
// server drops with its connection. It is another lock than that of the migrations, which nobody holds for long.
func (t *table) createIndex(ctx context.Context, ix sqlstate.Index) (err error) {
	if _, err := t.prepared(ctx); err != nil {
		return err
	}
	conn, err := t.db.Conn(ctx)
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
		_, unlock := conn.ExecContext(context.WithoutCancel(ctx), "DO RELEASE_LOCK("+lock+")", t.name)
		err = errors.Join(err, unlock)
	}()
	var version string
	if err := conn.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		return err
	}
	var missing []string
	for i, definition := range definitions(ix, strings.Contains(version, "MariaDB")) {
		there, err := exists(ctx, conn, "COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND COLUMN_NAME = ?", t.name, columnName(ix, "kns"[i:i+1]))
		if err != nil {
			return err
		}
		if !there {
			missing = append(missing, "ADD COLUMN "+definition)
		}
	}
	if len(missing) > 0 {
		if _, err := conn.ExecContext(ctx, "ALTER TABLE "+t.name+" "+strings.Join(missing, ", ")+", ALGORITHM=INSTANT"); err != nil {
			return err
		}
	}
	there, err := exists(ctx, conn, "STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ? AND INDEX_NAME = ?", t.name, indexName(ix))
	if err != nil || there {
		return err
	}
	_, err = conn.ExecContext(ctx, "ALTER TABLE "+t.name+" ADD INDEX "+indexName(ix)+" (store, "+columnName(ix, "k")+", "+columnName(ix, "n")+", "+
		columnName(ix, "s")+"), ALGORITHM=INPLACE, LOCK=NONE")
	return err
}

func exists(ctx context.Context, conn *sql.Conn, what string, args ...any) (bool, error) {
	var n int
	err := conn.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema."+what, args...).Scan(&n)
	return n > 0, err
}
