package mysqlstate

import (
	"math"
	"strconv"

	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// dialect spells filters in the JSON functions that MySQL 8 and MariaDB have in common: JSON_EXTRACT, JSON_TYPE,
// JSON_UNQUOTE and JSON_TABLE. MariaDB's JSON is text, MySQL's is a type of its own; CAST(... AS CHAR) makes text of both.
type dialect struct{}

var _ sqlstate.Dialect = dialect{}

// document is what filters are about.
func document() expr { return sqlstate.SQL("e.value") }

type expr = sqlstate.Expr

func (dialect) Extract(doc expr, path string) expr {
	return sqlstate.SQL("JSON_EXTRACT(@, @)", doc, sqlstate.Bind(path))
}

func (dialect) IsArray(doc expr) expr {
	return sqlstate.SQL("COALESCE(JSON_TYPE(@), '') = 'ARRAY'", doc)
}

// Elements makes an array of what is none by a function that copies: MySQL would round a number that it writes as text and reads again.
func (d dialect) Elements(doc expr, alias string) expr {
	return sqlstate.SQL("JSON_TABLE(COALESCE(JSON_MERGE_PRESERVE('[]', @), JSON_ARRAY(NULL)), '$[*]' COLUMNS (n FOR ORDINALITY, j JSON PATH '$')) AS "+alias, doc)
}

func (dialect) IsObject(alias string) expr {
	return sqlstate.SQL("COALESCE(JSON_TYPE(" + alias + ".j), '') = 'OBJECT'")
}

func (dialect) IsIndex(alias string, index int) expr {
	return sqlstate.SQL(alias + ".n = " + strconv.Itoa(index+1))
}

func (dialect) Object(alias string) expr { return sqlstate.SQL(alias + ".j") }

func (dialect) Row(alias string) sqlstate.Leaf {
	return sqlstate.Leaf{Type: sqlstate.SQL("COALESCE(JSON_TYPE(" + alias + ".j), 'NULL')"), Value: sqlstate.SQL(alias + ".j")}
}

func (d dialect) At(doc expr, path string) sqlstate.Leaf {
	v := d.Extract(doc, path)
	return sqlstate.Leaf{Type: sqlstate.SQL("JSON_TYPE(@)", v), Value: v}
}

func (dialect) Composite(l sqlstate.Leaf) expr {
	return sqlstate.SQL("COALESCE(@, 'ARRAY') = 'ARRAY'", l.Type)
}

func (dialect) Null(l sqlstate.Leaf) expr { return sqlstate.SQL("@ = 'NULL'", l.Type) }

func (dialect) Bool(l sqlstate.Leaf, b bool) expr {
	return sqlstate.SQL("(@ = 'BOOLEAN' AND CAST(@ AS CHAR) = '"+strconv.FormatBool(b)+"')", l.Type, l.Value)
}

const isNumber = "@ IN ('INTEGER', 'UNSIGNED INTEGER', 'DOUBLE', 'DECIMAL')"

// exactBelow is where 64-bit floats begin to be coarser than integers.
const exactBelow = 1 << 53

// Number compares as floats, and where integers may lie closer than floats do, also by the integers. The literal is
// read by the server, as the stored ones are.
func (dialect) Number(l sqlstate.Leaf, comparison, literal string) expr {
	operand := sqlstate.SQL("(JSON_EXTRACT(@, '$') + 0e0)", sqlstate.Bind(literal))
	condition := sqlstate.SQL("@ "+comparison+" @", float(l), operand)
	f, err := strconv.ParseFloat(literal, 64)
	if err != nil || math.Abs(f) >= exactBelow {
		exact := sqlstate.SQL("(@ = @ AND @ "+comparison+" @)", float(l), operand, integer(l), integer(sqlstate.Leaf{Value: sqlstate.SQL("JSON_EXTRACT(@, '$')", sqlstate.Bind(literal))}))
		if comparison == "=" {
			condition = exact
		} else {
			condition = sqlstate.SQL("(@ "+comparison[:1]+" @ OR @)", float(l), operand, exact)
		}
	}
	return sqlstate.SQL("CASE WHEN "+isNumber+" THEN @ ELSE 1=0 END", l.Type, condition)
}

func float(l sqlstate.Leaf) expr { return sqlstate.SQL("(@ + 0e0)", l.Value) }

// integer orders numbers that are the same as floats: a 64-bit integer by itself, every other number by the integer that
// it is as a float. What lies beyond 64 bits is one past their end.
func integer(l sqlstate.Leaf) expr {
	f, text := float(l), sqlstate.SQL("CAST(@ AS CHAR)", l.Value)
	return sqlstate.SQL("CASE WHEN @ REGEXP '^(-|)[0-9]{1,19}$' THEN LEAST(GREATEST(CAST(@ AS DECIMAL(20,0)), -9223372036854775808), 9223372036854775808)"+
		" WHEN @ >= 9223372036854775808e0 THEN 9223372036854775808 WHEN @ <= -9223372036854775808e0 THEN -9223372036854775808"+
		" ELSE CAST(@ AS SIGNED) END", text, text, f, f, f)
}

// content is a string's text as bytes: they compare by code point, and trailing blanks count.
func content(l sqlstate.Leaf) expr { return sqlstate.SQL("CAST(JSON_UNQUOTE(@) AS BINARY)", l.Value) }

func bytes(s string) expr { return sqlstate.SQL("CAST(@ AS BINARY)", sqlstate.Bind([]byte(s))) }

func (dialect) String(l sqlstate.Leaf, comparison, s string) expr {
	return sqlstate.SQL("(@ = 'STRING' AND @ "+comparison+" @)", l.Type, content(l), bytes(s))
}

func (dialect) Strings(l sqlstate.Leaf, values []string) expr {
	list := make([]expr, len(values))
	for i, s := range values {
		list[i] = bytes(s)
	}
	return sqlstate.SQL("(@ = 'STRING' AND @ IN (@))", l.Type, content(l), sqlstate.Join(list, ", "))
}

func (dialect) Contains(l sqlstate.Leaf, s string) expr {
	return sqlstate.SQL("(@ = 'STRING' AND LOCATE(@, @) > 0)", l.Type, bytes(s), content(l))
}

func (dialect) StartsWith(l sqlstate.Leaf, s string) expr {
	return sqlstate.SQL("(@ = 'STRING' AND LEFT(@, @) = @)", l.Type, content(l), sqlstate.Bind(len(s)), bytes(s))
}

func (dialect) EndsWith(l sqlstate.Leaf, s string) expr {
	return sqlstate.SQL("(@ = 'STRING' AND RIGHT(@, @) = @)", l.Type, content(l), sqlstate.Bind(len(s)), bytes(s))
}

// Order names the type once: finding out is what costs time. Integers are told apart where floats cannot.
func (dialect) Order(l sqlstate.Leaf) []expr {
	return []expr{
		rankOf(l.Type),
		sqlstate.SQL("CASE WHEN "+isNumber+" THEN @ WHEN @ = 'BOOLEAN' THEN CAST(@ AS CHAR) = 'true' END", l.Type, float(l), l.Type, l.Value),
		sqlstate.SQL("CASE WHEN "+isNumber+" AND ABS(@) >= "+strconv.Itoa(exactBelow)+" THEN @ END", l.Type, float(l), integer(l)),
		sqlstate.SQL("CASE WHEN @ = 'STRING' THEN @ END", l.Type, sorted(l)),
	}
}

// sortedBytes is how much of a string decides where it comes in an order. The servers sort by no more than their
// max_sort_length, which is 1024 with what they add; raising it needs a larger sort buffer.
const sortedBytes = 1000

func (dialect) SortedBytes() int { return sortedBytes }

func sorted(l sqlstate.Leaf) expr {
	return sqlstate.SQL("LEFT(@, "+strconv.Itoa(sortedBytes)+")", content(l))
}

// rankOf is the state.Rank of a type.
func rankOf(kind expr) expr {
	return sqlstate.SQL("CASE @ WHEN 'INTEGER' THEN 1 WHEN 'UNSIGNED INTEGER' THEN 1 WHEN 'DOUBLE' THEN 1 WHEN 'DECIMAL' THEN 1 WHEN 'STRING' THEN 2"+
		" WHEN 'OBJECT' THEN 3 WHEN 'ARRAY' THEN 4 WHEN 'BOOLEAN' THEN 5 ELSE 0 END", kind)
}
