package state

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Where begins a filter on the member at a dotted path, as in
//
//	Where("status").Eq("active").And(Where("level").Gte(10), Where("address.city").In("Ulm", "Bonn"))
//
// It means what the same filter means to ParseFilter. An operand is whatever Go value becomes a string, a number, a
// boolean or null in JSON. What is wrong with a path or an operand is the Filter's Err, and that of the query made with it.
func Where(path string) Member { return Member{path} }

// A Member is what a filter compares.
type Member struct{ path string }

// Eq matches what is equal to v; nil also matches a missing member.
func (m Member) Eq(v any) Filter { return m.compare("$eq", v) }

// Ne matches what Eq does not.
func (m Member) Ne(v any) Filter { return m.compare("$ne", v) }

// Gt matches what is greater than v, a number, a string or a boolean.
func (m Member) Gt(v any) Filter { return m.compare("$gt", v) }

// Gte matches what is greater than or equal to v.
func (m Member) Gte(v any) Filter { return m.compare("$gte", v) }

// Lt matches what is less than v.
func (m Member) Lt(v any) Filter { return m.compare("$lt", v) }

// Lte matches what is less than or equal to v.
func (m Member) Lte(v any) Filter { return m.compare("$lte", v) }

// In matches what is equal to one of the values; to none of none.
func (m Member) In(values ...any) Filter { return m.compare("$in", list(values)) }

// NotIn matches what In does not.
func (m Member) NotIn(values ...any) Filter { return m.compare("$nin", list(values)) }

// Exists matches where the member is there, be it null.
func (m Member) Exists() Filter { return m.compare("$exists", true) }

// Missing matches where the member is not there.
func (m Member) Missing() Filter { return m.compare("$exists", false) }

// Contains matches strings that have s in them.
func (m Member) Contains(s string) Filter { return m.compare("$contains", s) }

// StartsWith matches strings that begin with s.
func (m Member) StartsWith(s string) Filter { return m.compare("$startsWith", s) }

// EndsWith matches strings that end with s.
func (m Member) EndsWith(s string) Filter { return m.compare("$endsWith", s) }

// list is [] for no values, which null would not be.
func list(values []any) []any {
	if values == nil {
		return []any{}
	}
	return values
}

func (m Member) compare(op string, operand any) Filter {
	if strings.HasPrefix(m.path, "$") {
		return Filter{err: &FilterError{Path: m.path, Reason: "a member that a filter names does not begin with $"}}
	}
	path, err := ParsePath(m.path)
	if err != nil {
		return Filter{err: err}
	}
	if o, ok := plain(operand); ok && ordering(op) { // the rule, without writing and reading it
		return Filter{root: &Clause{Op: Operator(op), Path: path, Operands: []Operand{o}}}
	}
	data, err := json.Marshal(operand)
	if err != nil {
		return Filter{err: &FilterError{Path: m.path, Operator: op, Reason: fmt.Sprintf("the value cannot be written as JSON: %v", err)}}
	}
	p := &filterParser{dec: jsontext.NewDecoder(bytes.NewReader(data))}
	c, err := p.comparison(m.path, path, op, 0)
	if err != nil {
		return Filter{err: err}
	}
	return Filter{root: c}.bounded()
}

// ordering reports whether an operator has one operand, of which plain makes what the parser would.
func ordering(op string) bool {
	switch Operator(op) {
	case OpEq, OpGt, OpGte, OpLt, OpLte:
		return true
	default:
		return false
	}
}

// plain is the operand of the types that most operands have; false for others, and for what is not UTF-8.
func plain(v any) (Operand, bool) {
	switch v := v.(type) {
	case string:
		return Operand{Kind: String, Text: v}, utf8.ValidString(v)
	case int:
		return Operand{Kind: Number, Text: strconv.Itoa(v)}, true
	case int64:
		return Operand{Kind: Number, Text: strconv.FormatInt(v, 10)}, true
	case bool:
		return Operand{Kind: Bool, Text: strconv.FormatBool(v)}, true
	default:
		return Operand{}, false
	}
}

// And matches what f and all the others match.
func (f Filter) And(others ...Filter) Filter { return f.join(OpAnd, others) }

// Or matches what f or one of the others matches.
func (f Filter) Or(others ...Filter) Filter { return f.join(OpOr, others) }

// Not matches what f does not. Nothing does not match the zero Filter: its Not is an error.
func Not(f Filter) Filter {
	switch {
	case f.err != nil:
		return f
	case f.root == nil:
		return Filter{err: &FilterError{Operator: string(OpNot), Reason: "needs a condition, the filter that matches everything has none"}}
	}
	return Filter{root: negation(f.root)}.bounded()
}

// Err is what is wrong with a filter that was put together with Where, a *FilterError, or nil. A query with such a filter
// returns it.
func (f Filter) Err() error { return f.err }

func (f Filter) join(op Operator, others []Filter) Filter {
	joined := &Clause{Op: op}
	everything := false
	for _, one := range slices.Concat([]Filter{f}, others) {
		switch {
		case one.err != nil:
			return one
		case one.root == nil:
			everything = true
		case one.root.Op == op: // keeps long chains flat
			joined.Clauses = append(joined.Clauses, one.root.Clauses...)
		default:
			joined.Clauses = append(joined.Clauses, one.root)
		}
	}
	switch {
	case everything && op == OpOr, len(joined.Clauses) == 0:
		return Filter{}
	case len(joined.Clauses) == 1:
		return Filter{root: joined.Clauses[0]}
	}
	return Filter{root: joined}.bounded()
}

// bounded is the filter, or the error that it is larger than a filter may be.
func (f Filter) bounded() Filter {
	clauses, operands := 0, 0
	var measure func(c *Clause, depth int) error
	measure = func(c *Clause, depth int) error {
		if depth > MaxFilterDepth {
			return &FilterError{Reason: fmt.Sprintf("it is nested more than %d deep", MaxFilterDepth)}
		}
		if operands += len(c.Operands); operands > MaxFilterOperands {
			return &FilterError{Reason: fmt.Sprintf("the filter has more than %d values", MaxFilterOperands)}
		}
		if len(c.Path) > 0 {
			if clauses++; clauses > MaxFilterClauses {
				return &FilterError{Reason: fmt.Sprintf("the filter has more than %d comparisons", MaxFilterClauses)}
			}
		}
		for _, sub := range c.Clauses {
			if err := measure(sub, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if err := measure(f.root, 0); err != nil {
		return Filter{err: err}
	}
	return f
}
