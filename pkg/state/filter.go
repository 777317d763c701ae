package state

import (
	"strings"
)

// Bounds of a filter. They keep one query's cost, and the statement it becomes, within what every SQL engine takes.
const (
	MaxFilterDepth    = 32   // of nested $and, $or and $not
	MaxFilterClauses  = 200  // comparisons in one filter
	MaxFilterOperands = 1000 // values of one $in or $nin, and of one filter in all
	MaxPathSegments   = 32   // members named by one dotted path
	MaxFilterBytes    = 256 << 10
)

// A Filter says which values of a store a query is about. The zero Filter matches every value. A Filter is made by
// ParseFilter or put together with Where, never changes, and may be shared.
//
// The language is MongoDB's, reduced to what every SQL engine answers alike:
//
//	{"owner": "alice"}                       equality; a null operand matches null and missing alike
//	{"level": {"$gte": 10, "$lt": 20}}       $eq $ne $gt $gte $lt $lte; all of several operators must hold
//	{"realm": {"$in": ["a", "b"]}}           $in $nin
//	{"guild": {"$exists": true}}             null exists, missing does not
//	{"name": {"$startsWith": "Al"}}          $contains $startsWith $endsWith, of strings
//	{"$or": [{"a": 1}, {"b": 2}]}            $and $or $not; $not also before operators: {"a": {"$not": {"$gt": 1}}}
//	{"address.city": "Ulm"}                  dotted paths
//
// A comparison holds only between values of one type: numbers with numbers, strings with strings (by code point),
// booleans with booleans (false before true); operands are never objects or arrays, and null is only ever equal or
// not. Integers of 64 bits compare exactly, every other number as a 64-bit float. $ne, $nin and $not are complements:
// they match exactly what their opposite does not, missing members included.
//
// An array matches when it has an element that matches, and a path goes into the elements of an array that are
// objects; a segment of digits also picks the element at that index, from 0, and a path has at most four of those. An
// array of arrays is entered by index only. {"a.b": null} therefore matches an array a with an object that has no b,
// and not an array without objects.
type Filter struct {
	root *Clause
	err  error // of a filter that was put together wrongly
}

// Root returns the filter's tree for a driver to translate: nil matches everything. It must not be changed.
func (f Filter) Root() *Clause { return f.root }

// FilterOf is for drivers that take a parsed filter apart: it matches what all of the clauses match, nil or none everything.
func FilterOf(clauses []*Clause) Filter { return Filter{root: conjunction(clauses)} }

// An Operator is what a Clause does. A parsed filter has only these: $ne, $nin and {"$exists": false} have become
// OpNot of their opposite.
type Operator string

// The operators of a parsed filter.
const (
	OpAnd        Operator = "$and"        // every one of Clauses
	OpOr         Operator = "$or"         // at least one of Clauses
	OpNot        Operator = "$not"        // not the one in Clauses
	OpEq         Operator = "$eq"         // the operand; null also matches missing
	OpIn         Operator = "$in"         // one of the operands, which may be none
	OpGt         Operator = "$gt"         // greater than the operand, a number, string or boolean
	OpGte        Operator = "$gte"        // greater than or equal
	OpLt         Operator = "$lt"         // less than
	OpLte        Operator = "$lte"        // less than or equal
	OpExists     Operator = "$exists"     // the path leads to a value, which may be null; no operand
	OpContains   Operator = "$contains"   // a string that has the operand in it
	OpStartsWith Operator = "$startsWith" // a string that begins with the operand
	OpEndsWith   Operator = "$endsWith"   // a string that ends with the operand
)

// A Clause is one node of a filter's tree.
type Clause struct {
	Op       Operator
	Clauses  []*Clause // of OpAnd, OpOr (at least one) and OpNot (one)
	Path     []string  // of every other operator: at least one segment, none empty
	Operands []Operand // of OpIn any number, of OpExists none, of the others one
}

// A Kind is the type of an Operand.
type Kind uint8

// The kinds of operands.
const (
	Null Kind = iota
	Bool
	Number
	String
)

// An Operand is a value that a filter compares with.
type Operand struct {
	Kind Kind
	Text string // a string's content, a number as written, "true" or "false"
}

// A FilterError says what is wrong with a filter or a sort. It is ErrInvalid for errors.Is.
type FilterError struct {
	Path     string // the dotted member it is about; empty when it is about none
	Operator string // the operator as written; empty when it is about none
	Reason   string // what is wrong, and what to do
}

// Error is one sentence that names the member and the operator.
func (e *FilterError) Error() string {
	var b strings.Builder
	b.WriteString("filter: ")
	if e.Path != "" {
		b.WriteString("member " + quoted(e.Path) + ": ")
	}
	if e.Operator != "" {
		b.WriteString("operator " + quoted(e.Operator) + ": ")
	}
	b.WriteString(e.Reason)
	return b.String()
}

// Is makes errors.Is(err, ErrInvalid) true.
func (e *FilterError) Is(target error) bool { return target == ErrInvalid }
