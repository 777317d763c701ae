package sqlitestate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

var _ sqlstate.IndexDialect = dialect{}

// An index is one of SQLite's on expressions, of the rows of one store: kind and value at the path, then the key. While
// the members on the way cannot be arrays, that is also the order of a sort by the path.

// The terms of an index.
const (
	termKind = iota
	termValue
	termRows  // the table that the index is read of, and WHERE they are of the store
	termBegin // of what quickly asks, up to the kind
	termEnd   // of it, after the order; it has the limit and the offset
	termEqual // what a lone equality with a number or a string asks of the value
	termOne   // the statement for one with a number; the one for a string is after it
)

func (e *engine) terms(ix sqlstate.Index) []expr {
	kind := kindAt(document(), ix)
	rows := sqlstate.SQL(e.table.name + " e INDEXED BY " + e.indexName(ix) + " WHERE e.store = " + sqlstate.Literal(e.store))
	var composites []expr
	for _, k := range sqlstate.Composites(ix) {
		composites = append(composites, sqlstate.SQL(strconv.Itoa(k)))
	}
	value := valueAt(document(), ix)
	begin := sqlstate.SQL("SELECT * FROM (SELECT "+columns+" FROM @ AND @ = ", rows, kind)
	end := sqlstate.SQL(" LIMIT ? OFFSET ?) UNION ALL SELECT * FROM (SELECT '', x'', '', 0, 0, 0, NULL FROM @ AND @ IN (@) LIMIT 1)",
		rows, kind, sqlstate.Join(composites, ", "))
	equal := expr{Text: value.Text + " = " + operand(0).Text}
	return []expr{kind, value, rows, begin, end, equal,
		quick(begin, int(state.RankNumber), equal, end), quick(begin, int(state.RankString), equal, end)}
}

// quick is the statement for the values of a kind for which when holds, in the order of their keys.
func quick(begin expr, kind int, when, end expr) expr {
	return expr{Text: begin.Text + strconv.Itoa(kind) + " AND " + when.Text + " AND " + live + " ORDER BY e.key" + end.Text}
}

// kindAt is the rank of what is at the path, or that there is an array on the way. The text has to be the same in the
// index and in what is asked of it; so the path is not bound.
func kindAt(doc expr, ix sqlstate.Index) expr {
	var passed strings.Builder
	for _, path := range ix.Passed() {
		passed.WriteString("WHEN json_type(" + doc.Text + ", " + sqlstate.Literal(path) + ") = 'array' THEN 6 ")
	}
	kind := "CASE json_type(" + doc.Text + ", " + sqlstate.Literal(ix.JSONPath()) + ") WHEN 'integer' THEN 1 WHEN 'real' THEN 1 WHEN 'text' THEN 2" +
		" WHEN 'object' THEN 3 WHEN 'array' THEN 4 WHEN 'true' THEN 5 WHEN 'false' THEN 5 ELSE 0 END"
	if passed.Len() > 0 {
		kind = "CASE " + passed.String() + "ELSE " + kind + " END"
	}
	return expr{Text: "(" + kind + ")"}
}

// valueAt is the value at the path when it is a scalar, with booleans as 0 and 1.
func valueAt(doc expr, ix sqlstate.Index) expr {
	path := sqlstate.Literal(ix.JSONPath())
	return expr{Text: "(CASE WHEN json_type(" + doc.Text + ", " + path + ") NOT IN ('object', 'array') THEN " + doc.Text + " ->> " + path + " END)"}
}

func (dialect) Kept(ix sqlstate.Index, _ state.Rank) expr { return ix.Terms[termValue] }

// operand binds what an index is asked for in a way that SQLite does not look at while it plans. Else, since 3.54, it plans a
// statement with an order anew for each new value.
func operand(v any) expr { return sqlstate.SQL("ifnull(@, NULL)", sqlstate.Bind(v)) }

// KeptNumber binds a short literal, which is read alike by everybody. SQLite reads others as it has read the stored ones.
func (dialect) KeptNumber(literal string) (expr, bool) {
	if len(literal) <= fewDigits && !strings.ContainsAny(literal, "eE") {
		if n, err := strconv.ParseInt(literal, 10, 64); err == nil {
			return operand(n), true
		}
		if f, err := strconv.ParseFloat(literal, 64); err == nil {
			return operand(f), true
		}
	}
	return sqlstate.SQL("(@ ->> '$')", sqlstate.Bind(literal)), true
}

const fewDigits = 15

func (dialect) KeptString(value string) (expr, bool) { return operand(value), true }

// Indexed implements state.Indexer.
func (e *engine) Indexed() []string { return sqlstate.Names(e.indexed()) }

// indexed are the indexes of the store that are there.
func (e *engine) indexed() []sqlstate.Index {
	if all := e.indexes.Load(); all != nil {
		return *all
	}
	return nil
}

// indexName has the store in its hash: each has indexes of its own.
func (e *engine) indexName(ix sqlstate.Index) string {
	sum := sha256.Sum256([]byte(e.store + " " + ix.Hash))
	return e.table.name + "_x" + hex.EncodeToString(sum[:6])
}

// createIndex makes an index unless it is there. Changes wait meanwhile; reads do not.
func (e *engine) createIndex(ctx context.Context, ix sqlstate.Index) error {
	_, err := e.table.writer.ExecContext(ctx, "CREATE INDEX IF NOT EXISTS "+e.indexName(ix)+" ON "+e.table.name+" ("+kindAt(sqlstate.SQL("value"), ix).Text+", "+
		valueAt(sqlstate.SQL("value"), ix).Text+", key) WHERE store = "+sqlstate.Literal(e.store))
	return err
}

// ordered is the index that has the rows of a query in order. It is of use when few rows are asked for, and when the
// filter has no index to begin with.
func (e *engine) ordered(q state.Query) (sqlstate.Index, bool) {
	if q.Limit == 0 || len(q.Sort) == 0 {
		return sqlstate.Index{}, false
	}
	for _, ix := range e.indexed() {
		if len(ix.Path) == 1 && ix.Name == q.Sort[0].Field {
			return ix, true
		}
	}
	return sqlstate.Index{}, false
}

// within is the part of an index that what comes after the query's position is in, with a little more. SQLite begins at the
// kind and steps over what comes before the value: it cannot seek by several expressions at once.
func within(ix sqlstate.Index, q state.Query) expr {
	comparison := ">="
	if q.Sort[0].Descending {
		comparison = "<="
	}
	kind, value := ix.Terms[termKind], ix.Terms[termValue]
	place := q.After.Places[0]
	number := expr{Text: strconv.Itoa(int(place.Rank))}
	within := sqlstate.SQL("@ "+comparison+" @", kind, number)
	end := operand(place.Text)
	switch place.Rank {
	case state.RankNumber:
		end, _ = dialect{}.KeptNumber(place.Text)
	case state.RankBool:
		end = operand(map[string]int{"true": 1}[place.Text])
	case state.RankString:
	default:
		return within
	}
	return sqlstate.SQL("@ AND (@, @) "+comparison+" (@, @)", within, kind, value, number, end)
}
