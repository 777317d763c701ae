package sqlstate

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// maxIndexes is how many segments of one path may be array indexes. A segment of digits is also the name of a member, so
// that each one doubles the ways there are: 16 of them are 65 536 for every value of the store, and one small filter
// would keep a server busy for minutes.
const maxIndexes = 4

// A Dialect is how one engine spells what a filter asks of JSON. A doc is an expression for JSON, or NULL for what is
// missing. A condition is never NULL.
type Dialect interface {
	// Extract is the JSON at a path of doc, which goes through objects and given indexes only; NULL when missing.
	Extract(doc Expr, path string) Expr
	// IsArray is the condition that doc is an array.
	IsArray(doc Expr) Expr
	// Elements is a table to select from: the elements of doc when it is an array, else one row for doc itself (null
	// when it is missing).
	Elements(doc Expr, alias string) Expr
	// IsObject is the condition that a row of Elements is an object.
	IsObject(alias string) Expr
	// IsIndex is the condition that a row of Elements is the one at the index, from 0.
	IsIndex(alias string, index int) Expr
	// Object is a row of Elements as a doc, when it is an object; otherwise it has no members.
	Object(alias string) Expr

	// Row is a row of Elements to compare, At what is at a path of doc (its Type is NULL when missing).
	Row(alias string) Leaf
	At(doc Expr, path string) Leaf
	// Composite is the condition that the leaf is missing or an array, so that its elements and those of arrays on the
	// way decide.
	Composite(l Leaf) Expr

	// What a leaf is compared with. comparison is one of = < <= > >=.
	Null(l Leaf) Expr
	Bool(l Leaf, value bool) Expr
	Number(l Leaf, comparison, literal string) Expr
	String(l Leaf, comparison, value string) Expr
	Contains(l Leaf, value string) Expr
	StartsWith(l Leaf, value string) Expr
	EndsWith(l Leaf, value string) Expr
	// Strings is the condition that a leaf is a string among values.
	Strings(l Leaf, values []string) Expr

	// Order is what to order by for one leaf: first the rank of its type, then its value.
	Order(l Leaf) []Expr
	// SortedBytes is how much of a string counts in Order.
	SortedBytes() int
}

// A Leaf is a JSON value to compare: its type and its value, as the dialect spells them.
type Leaf struct {
	Type, Value Expr
}

// Where turns a filter into a condition on doc that is never NULL. An error is a *state.FilterError.
func Where(d Dialect, doc Expr, f state.Filter) (Expr, error) {
	if f.Root() == nil {
		return SQL("1=1"), nil
	}
	return clause(d, doc, f.Root())
}

// OrderBy turns sorts into the list after ORDER BY. by is what to order by for what is at a path, as Dialect.Order has it.
// key ends the list, so that no two rows tie.
func OrderBy(sorts []state.Sort, key string, by func(path []string) []Expr) (Expr, error) {
	var list []Expr
	for _, s := range sorts {
		path, err := state.ParsePath(s.Field)
		if err != nil {
			return Expr{}, err
		}
		for _, e := range by(path) {
			if s.Descending {
				e = SQL("@ DESC", e)
			}
			list = append(list, e)
		}
	}
	return Join(append(list, SQL(key)), ", "), nil
}

// OrderAt is what to order by for what is at a path of doc.
func OrderAt(d Dialect, doc Expr, path []string) []Expr { return d.Order(d.At(doc, jsonPath(path))) }

func clause(d Dialect, doc Expr, c *state.Clause) (Expr, error) {
	switch c.Op {
	case state.OpAnd, state.OpOr:
		parts := make([]Expr, len(c.Clauses))
		for i, sub := range c.Clauses {
			part, err := clause(d, doc, sub)
			if err != nil {
				return Expr{}, err
			}
			parts[i] = SQL("(@)", part)
		}
		if c.Op == state.OpOr {
			return Join(parts, " OR "), nil
		}
		return Join(parts, " AND "), nil
	case state.OpNot:
		part, err := clause(d, doc, c.Clauses[0])
		return SQL("NOT (@)", part), err
	default:
		return onPath(d, doc, c)
	}
}

// onPath is the condition that what a path leads to is there, or satisfies a comparison.
func onPath(d Dialect, doc Expr, c *state.Clause) (Expr, error) {
	w, err := walkTo(d, doc, c.Path)
	if err != nil {
		return Expr{}, err
	}
	if c.Op == state.OpExists {
		return w.exists(), nil
	}
	row, err := compare(d, w.row(), c)
	if err != nil {
		return Expr{}, err
	}
	direct := d.At(doc, jsonPath(c.Path))
	scalar, err := compare(d, direct, c)
	if err != nil {
		return Expr{}, err
	}
	// Most members are scalars reached through objects alone; they are compared without a subquery.
	return SQL("CASE WHEN @ THEN @ ELSE @ END", d.Composite(direct), w.any(row), scalar), nil
}

// A walk is the way along a path, into arrays where there are any.
type walk struct {
	d     Dialect
	from  []Expr
	where []Expr
	end   Expr // the doc that the path leads to
}

// walkTo goes along path. At each array its elements that are objects are gone into; where the next segment is an
// index, so is the element there.
func walkTo(d Dialect, doc Expr, path []string) (*walk, error) {
	w := &walk{d: d, end: d.Extract(doc, jsonPath(path[:1]))}
	indexes := 0
	for i, segment := range path[1:] {
		alias := "x" + strconv.Itoa(i+1)
		w.from = append(w.from, d.Elements(w.end, alias))
		member := d.Extract(d.Object(alias), jsonPath([]string{segment}))
		// An element that is no object leads nowhere; a lone value that is none leads to something missing.
		byName := SQL("(@ OR NOT @)", d.IsObject(alias), d.IsArray(w.end))
		index, ok := arrayIndex(segment)
		if !ok {
			w.where = append(w.where, byName)
			w.end = member
			continue
		}
		if indexes++; indexes > maxIndexes {
			return nil, &state.FilterError{Path: strings.Join(path, "."), Reason: fmt.Sprintf("the path has more than %d array indexes", maxIndexes)}
		}
		pick := SQL("b" + strconv.Itoa(i+1) + ".pick")
		w.from = append(w.from, SQL("(SELECT 0 AS pick UNION ALL SELECT 1) AS b"+strconv.Itoa(i+1)))
		w.where = append(w.where, SQL("CASE @ WHEN 0 THEN @ ELSE (@ AND @) END", pick, byName, d.IsArray(w.end), d.IsIndex(alias, index)))
		w.end = SQL("CASE @ WHEN 0 THEN @ ELSE @ END", pick, member, d.Extract(w.end, "$["+strconv.Itoa(index)+"]"))
	}
	return w, nil
}

// exists is the condition that the path leads to something.
func (w *walk) exists() Expr {
	found := SQL("(@) IS NOT NULL", w.end)
	if len(w.from) == 0 {
		return found
	}
	return exists(w.from, append(w.where, found))
}

const lastRow = "x0"

// row is what any compares: each element of the end, or the end itself.
func (w *walk) row() Leaf { return w.d.Row(lastRow) }

// any is the condition that there is a row for which the condition holds.
func (w *walk) any(condition Expr) Expr {
	return exists(append(w.from, w.d.Elements(w.end, lastRow)), append(w.where, SQL("(@)", condition)))
}

// exists is the condition that the tables have such a row. MySQL 8 would make a join of it and read the elements of a value before the value
// itself, which fails with the message that the document is empty; it heeds the hint, and others take it for a comment.
func exists(from, where []Expr) Expr {
	return SQL("EXISTS (SELECT /*+ NO_SEMIJOIN() */ 1 FROM @ WHERE @)", Join(from, ", "), Join(where, " AND "))
}

// compare is the condition that a leaf satisfies a comparison.
func compare(d Dialect, l Leaf, c *state.Clause) (Expr, error) {
	switch c.Op {
	case state.OpEq, state.OpIn:
		return among(d, l, c.Operands), nil
	case state.OpGt:
		return ordered(d, l, ">", c.Operands[0]), nil
	case state.OpGte:
		return ordered(d, l, ">=", c.Operands[0]), nil
	case state.OpLt:
		return ordered(d, l, "<", c.Operands[0]), nil
	case state.OpLte:
		return ordered(d, l, "<=", c.Operands[0]), nil
	case state.OpContains:
		return d.Contains(l, c.Operands[0].Text), nil
	case state.OpStartsWith:
		return d.StartsWith(l, c.Operands[0].Text), nil
	case state.OpEndsWith:
		return d.EndsWith(l, c.Operands[0].Text), nil
	default:
		return Expr{}, &state.FilterError{Path: strings.Join(c.Path, "."), Operator: string(c.Op), Reason: "is not one that SQL engines evaluate"}
	}
}

// among is the condition that a leaf equals one of the operands.
func among(d Dialect, l Leaf, operands []state.Operand) Expr {
	var either []Expr
	var strs []string
	for _, o := range operands {
		if o.Kind == state.String {
			strs = append(strs, o.Text)
			continue
		}
		either = append(either, ordered(d, l, "=", o))
	}
	switch len(strs) {
	case 0:
	case 1:
		either = append(either, d.String(l, "=", strs[0]))
	default:
		either = append(either, d.Strings(l, strs))
	}
	return anyOf(either)
}

// ordered is the condition that a leaf stands so to an operand of its own type.
func ordered(d Dialect, l Leaf, comparison string, o state.Operand) Expr {
	switch o.Kind {
	case state.Null:
		return d.Null(l)
	case state.Number:
		return d.Number(l, comparison, o.Text)
	case state.String:
		return d.String(l, comparison, o.Text)
	default: // state.Bool, the only other kind
		return boolean(d, l, comparison, o.Text == "true")
	}
}

// boolean names the values that stand so to the operand.
func boolean(d Dialect, l Leaf, comparison string, operand bool) Expr {
	var either []Expr
	for _, value := range []bool{false, true} { // false before true
		less, equal := !value && operand, value == operand
		switch comparison {
		case "=":
			equal, less = value == operand, false
		case "<":
			equal = false
		case ">":
			equal, less = false, value && !operand
		case ">=":
			less = value && !operand
		}
		if equal || less {
			either = append(either, d.Bool(l, value))
		}
	}
	return anyOf(either)
}

// anyOf nests alternatives as a tree of even height: SQLite allows expressions of depth 1000, and a $in has as many
// operands.
func anyOf(either []Expr) Expr {
	switch len(either) {
	case 0:
		return SQL("1=0")
	case 1:
		return either[0]
	}
	half := len(either) / 2
	return SQL("(@ OR @)", anyOf(either[:half]), anyOf(either[half:]))
}

// jsonPath spells a path of members. It is bound, never part of the statement's text; the quoting is for the engine's
// own path syntax.
func jsonPath(segments []string) string {
	var b strings.Builder
	b.WriteByte('$')
	for _, s := range segments {
		b.WriteString(`."`)
		for _, r := range s {
			if r == '"' || r == '\\' {
				b.WriteByte('\\')
			}
			b.WriteRune(r)
		}
		b.WriteByte('"')
	}
	return b.String()
}

// arrayIndex reads a segment that can be an index: digits without a leading zero, within what a value can hold.
func arrayIndex(segment string) (int, bool) {
	if len(segment) > 7 || (len(segment) > 1 && segment[0] == '0') {
		return 0, false
	}
	for i := range len(segment) {
		if segment[i] < '0' || segment[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.Atoi(segment)
	return n, err == nil
}
