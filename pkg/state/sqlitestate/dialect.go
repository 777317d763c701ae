package sqlitestate

import (
	"strconv"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// dialect spells filters in SQLite's JSON functions. A number there is an INTEGER when it fits into 64 bits and has
// neither fraction nor exponent, else a REAL; SQLite compares the two exactly.
type dialect struct{}

var _ sqlstate.Dialect = dialect{}

// document is what filters are about.
func document() expr { return sqlstate.SQL("e.value") }

type expr = sqlstate.Expr

func (dialect) Extract(doc expr, path string) expr {
	return sqlstate.SQL("(@ -> @)", doc, sqlstate.Bind(path))
}

func (dialect) IsArray(doc expr) expr { return sqlstate.SQL("json_type(@) IS 'array'", doc) }

func (d dialect) Elements(doc expr, alias string) expr {
	return sqlstate.SQL("json_each(CASE WHEN @ THEN @ ELSE '[' || coalesce(@, 'null') || ']' END) AS "+alias, d.IsArray(doc), doc, doc)
}

func (dialect) IsObject(alias string) expr { return sqlstate.SQL(alias + ".type = 'object'") }

func (dialect) IsIndex(alias string, index int) expr {
	return sqlstate.SQL(alias + ".key = " + strconv.Itoa(index))
}

// Object is NULL for a row that is none: the value of a string is its text, which is not JSON.
func (dialect) Object(alias string) expr {
	return sqlstate.SQL("CASE " + alias + ".type WHEN 'object' THEN " + alias + ".value END")
}

func (dialect) Row(alias string) sqlstate.Leaf {
	return sqlstate.Leaf{Type: sqlstate.SQL(alias + ".type"), Value: sqlstate.SQL(alias + ".value")}
}

func (dialect) At(doc expr, path string) sqlstate.Leaf {
	return sqlstate.Leaf{
		Type:  sqlstate.SQL("json_type(@, @)", doc, sqlstate.Bind(path)),
		Value: sqlstate.SQL("(@ ->> @)", doc, sqlstate.Bind(path)),
	}
}

func (dialect) Composite(l sqlstate.Leaf) expr {
	return sqlstate.SQL("coalesce(@, 'array') = 'array'", l.Type)
}

func (dialect) Null(l sqlstate.Leaf) expr { return sqlstate.SQL("@ = 'null'", l.Type) }

func (dialect) Bool(l sqlstate.Leaf, b bool) expr {
	if b {
		return sqlstate.SQL("@ = 'true'", l.Type)
	}
	return sqlstate.SQL("@ = 'false'", l.Type)
}

// Number leaves the reading of the literal to SQLite, so that it is read as the stored ones are.
func (dialect) Number(l sqlstate.Leaf, comparison, literal string) expr {
	return sqlstate.SQL("(@ IN ('integer', 'real') AND @ "+comparison+" (@ ->> '$'))", l.Type, l.Value, sqlstate.Bind(literal))
}

func (dialect) String(l sqlstate.Leaf, comparison, s string) expr {
	return sqlstate.SQL("(@ = 'text' AND @ "+comparison+" @)", l.Type, l.Value, sqlstate.Bind(s))
}

func (dialect) Strings(l sqlstate.Leaf, values []string) expr {
	return sqlstate.SQL("(@ = 'text' AND @ IN (@))", l.Type, l.Value, sqlstate.Binds(values))
}

func (dialect) Contains(l sqlstate.Leaf, s string) expr {
	return sqlstate.SQL("(@ = 'text' AND instr(@, @) > 0)", l.Type, l.Value, sqlstate.Bind(s))
}

// StartsWith compares bytes: the functions on text stop at a NUL, and count characters from the beginning. A part of an
// empty blob is NULL, hence IS.
func (dialect) StartsWith(l sqlstate.Leaf, s string) expr {
	if s == "" {
		return sqlstate.SQL("@ = 'text'", l.Type)
	}
	return sqlstate.SQL("(@ = 'text' AND substr(CAST(@ AS BLOB), 1, @) IS CAST(@ AS BLOB))", l.Type, l.Value, sqlstate.Bind(len(s)), sqlstate.Bind(s))
}

func (dialect) EndsWith(l sqlstate.Leaf, s string) expr {
	if s == "" {
		return sqlstate.SQL("@ = 'text'", l.Type)
	}
	return sqlstate.SQL("(@ = 'text' AND substr(CAST(@ AS BLOB), @) IS CAST(@ AS BLOB))", l.Type, l.Value, sqlstate.Bind(-len(s)), sqlstate.Bind(s))
}

func (dialect) Order(l sqlstate.Leaf) []expr {
	return []expr{
		sqlstate.SQL("CASE @ WHEN 'integer' THEN 1 WHEN 'real' THEN 1 WHEN 'text' THEN 2 WHEN 'object' THEN 3 WHEN 'array' THEN 4 WHEN 'true' THEN 5 WHEN 'false' THEN 5 ELSE 0 END", l.Type),
		sqlstate.SQL("CASE WHEN @ NOT IN ('object', 'array') THEN @ END", l.Type, l.Value),
	}
}

// SortedBytes is more than any string has.
func (dialect) SortedBytes() int { return state.MaxValueBytes + 1 }
