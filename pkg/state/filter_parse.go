package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// ParseFilter reads a filter as the package describes it at Filter. Empty input and {} match everything. Every error
// is a *FilterError, which names the operator or member at fault.
func ParseFilter(data []byte) (Filter, error) {
	if len(data) > MaxFilterBytes {
		return Filter{}, &FilterError{Reason: fmt.Sprintf("%d bytes are more than the %d allowed", len(data), MaxFilterBytes)}
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return Filter{}, nil
	}
	p := &filterParser{dec: jsontext.NewDecoder(bytes.NewReader(data))}
	root, err := p.document(0)
	if err != nil {
		return Filter{}, err
	}
	if _, err := p.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return Filter{}, &FilterError{Reason: "there is text after the filter's object"}
	}
	return Filter{root: root}, nil
}

// filterParser turns tokens into clauses and counts what the bounds limit.
type filterParser struct {
	dec      *jsontext.Decoder
	clauses  int
	operands int
}

// document reads {member: condition, ...}: all must hold. An empty one is nil, which matches everything.
func (p *filterParser) document(depth int) (*Clause, error) {
	if depth > MaxFilterDepth {
		return nil, &FilterError{Reason: fmt.Sprintf("it is nested more than %d deep", MaxFilterDepth)}
	}
	if err := p.open('{', "", "", "must be an object such as {\"member\": value}"); err != nil {
		return nil, err
	}
	var all []*Clause
	for p.dec.PeekKind() != '}' {
		name, err := p.name()
		if err != nil {
			return nil, err
		}
		c, err := p.member(name, depth)
		if err != nil {
			return nil, err
		}
		if c != nil {
			all = append(all, c)
		}
	}
	if _, err := p.token(); err != nil {
		return nil, err
	}
	return conjunction(all), nil
}

// member reads what stands after a name: a list of filters, a filter, or a condition on the path that the name is.
func (p *filterParser) member(name string, depth int) (*Clause, error) {
	switch {
	case name == string(OpAnd), name == string(OpOr):
		return p.list(Operator(name), depth)
	case name == string(OpNot):
		c, err := p.document(depth + 1)
		if err != nil {
			return nil, err
		}
		if c == nil {
			return nil, &FilterError{Operator: name, Reason: "needs a condition, {} has none"}
		}
		return negation(c), nil
	case strings.HasPrefix(name, "$"):
		if operatorOf(name) != nil {
			return nil, &FilterError{Operator: name, Reason: "stands within a member's condition, as in {\"member\": {\"" + name + "\": ...}}"}
		}
		return nil, unknownOperator("", name)
	}
	path, err := ParsePath(name)
	if err != nil {
		return nil, err
	}
	return p.condition(name, path, depth)
}

// list reads the filters of $and and $or.
func (p *filterParser) list(op Operator, depth int) (*Clause, error) {
	if err := p.open('[', "", string(op), "needs an array of filters"); err != nil {
		return nil, err
	}
	c := &Clause{Op: op}
	var everything bool
	for p.dec.PeekKind() != ']' {
		sub, err := p.document(depth + 1)
		if err != nil {
			return nil, err
		}
		if sub == nil {
			everything = true
			continue
		}
		c.Clauses = append(c.Clauses, sub)
	}
	if _, err := p.token(); err != nil {
		return nil, err
	}
	switch {
	case everything && (op == OpOr || len(c.Clauses) == 0):
		return nil, nil // {} matches everything, and so does an $or with it
	case len(c.Clauses) == 0:
		return nil, &FilterError{Operator: string(op), Reason: "needs at least one filter"}
	}
	return c, nil
}

// condition reads what a member must be: a value to equal, or an object of operators that must all hold.
func (p *filterParser) condition(name string, path []string, depth int) (*Clause, error) {
	if p.dec.PeekKind() != '{' {
		return p.comparison(name, path, string(OpEq), depth)
	}
	if depth > MaxFilterDepth {
		return nil, &FilterError{Path: name, Reason: fmt.Sprintf("it is nested more than %d deep", MaxFilterDepth)}
	}
	if _, err := p.token(); err != nil {
		return nil, err
	}
	var all []*Clause
	for p.dec.PeekKind() != '}' {
		op, err := p.name()
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(op, "$") {
			return nil, &FilterError{Path: name, Reason: "a value cannot be compared with an object; name its members by path, as in " + quoted(name+"."+op)}
		}
		c, err := p.comparison(name, path, op, depth)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if _, err := p.token(); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, &FilterError{Path: name, Reason: "needs a value or an operator, {} has none"}
	}
	return conjunction(all), nil
}

// An operatorReader reads the operand of one condition's operator.
type operatorReader func(p *filterParser, name string, path []string, op string) (*Clause, error)

// operatorOf returns how the operand of a condition's operator is read, nil when there is no such operator.
func operatorOf(op string) operatorReader {
	switch op {
	case "$eq", "$ne":
		return (*filterParser).equality
	case "$in", "$nin":
		return (*filterParser).membership
	case "$gt", "$gte", "$lt", "$lte":
		return (*filterParser).ordering
	case "$exists":
		return (*filterParser).existence
	case "$contains", "$startsWith", "$endsWith":
		return (*filterParser).text
	}
	return nil
}

// comparison reads one operator of a member's condition.
func (p *filterParser) comparison(name string, path []string, op string, depth int) (*Clause, error) {
	if op == string(OpNot) {
		if p.dec.PeekKind() != '{' {
			return nil, &FilterError{Path: name, Operator: op, Reason: "needs an object of operators"}
		}
		c, err := p.condition(name, path, depth+1)
		if err != nil {
			return nil, err
		}
		return negation(c), nil
	}
	read := operatorOf(op)
	if read == nil {
		return nil, unknownOperator(name, op)
	}
	if p.clauses++; p.clauses > MaxFilterClauses {
		return nil, &FilterError{Path: name, Operator: op, Reason: fmt.Sprintf("the filter has more than %d comparisons", MaxFilterClauses)}
	}
	return read(p, name, path, op)
}

func (p *filterParser) equality(name string, path []string, op string) (*Clause, error) {
	v, err := p.operand(name, op)
	if err != nil {
		return nil, err
	}
	c := &Clause{Op: OpEq, Path: path, Operands: []Operand{v}}
	if op == "$ne" {
		return negation(c), nil
	}
	return c, nil
}

func (p *filterParser) membership(name string, path []string, op string) (*Clause, error) {
	if err := p.open('[', name, op, "needs an array of values"); err != nil {
		return nil, err
	}
	c := &Clause{Op: OpIn, Path: path}
	for p.dec.PeekKind() != ']' {
		v, err := p.operand(name, op)
		if err != nil {
			return nil, err
		}
		c.Operands = append(c.Operands, v)
	}
	if _, err := p.token(); err != nil {
		return nil, err
	}
	if op == "$nin" {
		return negation(c), nil
	}
	return c, nil
}

func (p *filterParser) ordering(name string, path []string, op string) (*Clause, error) {
	v, err := p.operand(name, op)
	if err != nil {
		return nil, err
	}
	if v.Kind == Null {
		return nil, &FilterError{Path: name, Operator: op, Reason: "needs a number, a string or a boolean; null has no order"}
	}
	return &Clause{Op: Operator(op), Path: path, Operands: []Operand{v}}, nil
}

func (p *filterParser) existence(name string, path []string, op string) (*Clause, error) {
	v, err := p.operand(name, op)
	if err != nil {
		return nil, err
	}
	if v.Kind != Bool {
		return nil, &FilterError{Path: name, Operator: op, Reason: "needs true or false"}
	}
	c := &Clause{Op: OpExists, Path: path}
	if v.Text == "false" {
		return negation(c), nil
	}
	return c, nil
}

func (p *filterParser) text(name string, path []string, op string) (*Clause, error) {
	v, err := p.operand(name, op)
	if err != nil {
		return nil, err
	}
	if v.Kind != String {
		return nil, &FilterError{Path: name, Operator: op, Reason: "needs a string"}
	}
	return &Clause{Op: Operator(op), Path: path, Operands: []Operand{v}}, nil
}

// operand reads a scalar.
func (p *filterParser) operand(name, op string) (Operand, error) {
	if p.operands++; p.operands > MaxFilterOperands {
		return Operand{}, &FilterError{Path: name, Operator: op, Reason: fmt.Sprintf("the filter has more than %d values", MaxFilterOperands)}
	}
	if k := p.dec.PeekKind(); k == '{' || k == '[' {
		return Operand{}, &FilterError{Path: name, Operator: op, Reason: "needs a string, a number, a boolean or null; objects and arrays are matched by their members and elements"}
	}
	t, err := p.token()
	if err != nil {
		return Operand{}, err
	}
	switch t.Kind() {
	case 'n':
		return Operand{Kind: Null}, nil
	case 't', 'f':
		return Operand{Kind: Bool, Text: t.String()}, nil
	case '0':
		text := t.String()
		if f, err := strconv.ParseFloat(text, 64); err != nil || math.IsInf(f, 0) {
			return Operand{}, &FilterError{Path: name, Operator: op, Reason: "the number is beyond the range of a 64-bit float"}
		}
		return Operand{Kind: Number, Text: text}, nil
	default:
		return Operand{Kind: String, Text: t.String()}, nil
	}
}

func (p *filterParser) open(kind jsontext.Kind, path, op, reason string) error {
	if k := p.dec.PeekKind(); k != kind && k != 0 {
		return &FilterError{Path: path, Operator: op, Reason: reason}
	}
	_, err := p.token()
	return err
}

func (p *filterParser) name() (string, error) {
	t, err := p.token()
	if err != nil {
		return "", err
	}
	return t.String(), nil
}

func (p *filterParser) token() (jsontext.Token, error) {
	t, err := p.dec.ReadToken()
	if err != nil {
		return t, &FilterError{Reason: fmt.Sprintf("it is not valid JSON near byte %d", p.dec.InputOffset())}
	}
	return t.Clone(), nil
}

// ParsePath splits a dotted path, as filters and sorts have it, into its segments. The error is a *FilterError.
func ParsePath(path string) ([]string, error) {
	if !utf8.ValidString(path) {
		return nil, &FilterError{Path: path, Reason: "the path is not valid UTF-8"}
	}
	segments := strings.Split(path, ".")
	if len(segments) > MaxPathSegments {
		return nil, &FilterError{Path: path, Reason: fmt.Sprintf("the path has more than %d segments", MaxPathSegments)}
	}
	for _, s := range segments {
		if s == "" {
			return nil, &FilterError{Path: path, Reason: "the path has an empty segment"}
		}
		if s[0] == '-' {
			return nil, &FilterError{Path: path, Reason: "a segment begins with a dash; MariaDB has no path to such a member"}
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, &FilterError{Path: path, Reason: "the path has a control character"}
		}
	}
	return segments, nil
}

func conjunction(all []*Clause) *Clause {
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	return &Clause{Op: OpAnd, Clauses: all}
}

func negation(c *Clause) *Clause { return &Clause{Op: OpNot, Clauses: []*Clause{c}} }

func unknownOperator(path, op string) error {
	return &FilterError{Path: path, Operator: op, Reason: "is unknown; known are " + knownOperators}
}

const knownOperators = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $contains, $startsWith, $endsWith, $and, $or and $not"

// quoted shows text from outside in a message: escaped, and cut where it would drown the sentence.
func quoted(s string) string {
	const most = 128
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strconv.Quote(s)
}
