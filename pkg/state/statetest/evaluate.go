package statetest

import (
	"bytes"
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A node is a JSON value with its numbers as they are written.
type node struct {
	kind     byte // one of n b 0 " { [
	text     string
	names    []string // of an object's members
	children []*node  // an object's values or an array's elements
}

// parse reads a JSON value.
func parse(data []byte) (*node, error) {
	return read(jsontext.NewDecoder(bytes.NewReader(data)))
}

func read(dec *jsontext.Decoder) (*node, error) {
	token, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case 'n':
		return &node{kind: 'n'}, nil
	case 't', 'f':
		return &node{kind: 'b', text: token.String()}, nil
	case '0':
		return &node{kind: '0', text: token.String()}, nil
	case '"':
		return &node{kind: '"', text: token.String()}, nil
	default:
		return readChildren(dec, &node{kind: byte(token.Kind())})
	}
}

// readChildren reads an object or an array whose beginning has been read.
func readChildren(dec *jsontext.Decoder, n *node) (*node, error) {
	for dec.PeekKind() != '}' && dec.PeekKind() != ']' {
		if n.kind == '{' {
			name, err := dec.ReadToken()
			if err != nil {
				return nil, err
			}
			n.names = append(n.names, name.String())
		}
		child, err := read(dec)
		if err != nil {
			return nil, err
		}
		n.children = append(n.children, child)
	}
	_, err := dec.ReadToken()
	return n, err
}

// member is the value of an object's member, nil when there is none.
func (n *node) member(name string) *node {
	if n == nil || n.kind != '{' {
		return nil
	}
	if i := slices.Index(n.names, name); i >= 0 {
		return n.children[i]
	}
	return nil
}

// matches evaluates a filter as state.Filter describes it, in the plainest way there is. It is what the engines are
// compared with.
func matches(c *state.Clause, doc *node) bool {
	if c == nil {
		return true
	}
	switch c.Op {
	case state.OpAnd:
		return !slices.ContainsFunc(c.Clauses, func(sub *state.Clause) bool { return !matches(sub, doc) })
	case state.OpOr:
		return slices.ContainsFunc(c.Clauses, func(sub *state.Clause) bool { return matches(sub, doc) })
	case state.OpNot:
		return !matches(c.Clauses[0], doc)
	case state.OpExists:
		return slices.ContainsFunc(reached(doc, c.Path, true), func(n *node) bool { return n != nil })
	default:
		return slices.ContainsFunc(reached(doc, c.Path, true), func(n *node) bool {
			if n != nil && n.kind == '[' {
				return slices.ContainsFunc(n.children, func(element *node) bool { return satisfies(c, element) })
			}
			return satisfies(c, n)
		})
	}
}

// reached are the values that a path leads to; nil stands for a missing one. The document itself is no array to enter.
func reached(n *node, path []string, root bool) []*node {
	if len(path) == 0 {
		return []*node{n}
	}
	if root || n == nil || n.kind != '[' {
		return reached(n.member(path[0]), path[1:], false)
	}
	var all []*node
	for _, element := range n.children {
		if element.kind == '{' {
			all = append(all, reached(element.member(path[0]), path[1:], false)...)
		}
	}
	if i, err := strconv.Atoi(path[0]); err == nil && strconv.Itoa(i) == path[0] && i >= 0 && i < len(n.children) {
		all = append(all, reached(n.children[i], path[1:], false)...)
	}
	return all
}

// satisfies compares one value, nil when missing.
func satisfies(c *state.Clause, n *node) bool {
	return slices.ContainsFunc(c.Operands, func(o state.Operand) bool {
		if o.Kind == state.Null {
			return n == nil || n.kind == 'n'
		}
		if n == nil || n.kind != map[state.Kind]byte{state.Bool: 'b', state.Number: '0', state.String: '"'}[o.Kind] {
			return false
		}
		order := compareScalars(n, &node{kind: n.kind, text: o.Text})
		switch c.Op {
		case state.OpEq, state.OpIn:
			return order == 0
		case state.OpGt:
			return order > 0
		case state.OpGte:
			return order >= 0
		case state.OpLt:
			return order < 0
		case state.OpLte:
			return order <= 0
		case state.OpContains:
			return strings.Contains(n.text, o.Text)
		case state.OpStartsWith:
			return strings.HasPrefix(n.text, o.Text)
		case state.OpEndsWith:
			return strings.HasSuffix(n.text, o.Text)
		default:
			panic(fmt.Sprintf("the evaluator does not know the operator %s", c.Op))
		}
	})
}

// compareScalars orders two values of one kind. "false" < "true" as text, too.
func compareScalars(a, b *node) int {
	if a.kind == '0' {
		return exactNumber(a.text).Cmp(exactNumber(b.text))
	}
	return strings.Compare(a.text, b.text)
}

// exactNumber is a 64-bit integer as it is, and every other number as the nearest 64-bit float.
func exactNumber(literal string) *big.Float {
	if i, err := strconv.ParseInt(literal, 10, 64); err == nil {
		return new(big.Float).SetInt64(i)
	}
	f, err := strconv.ParseFloat(literal, 64)
	if err != nil {
		panic(err)
	}
	return new(big.Float).SetFloat64(f)
}

// compareBy orders two documents by the sorts alone.
func compareBy(sorts []state.Sort, a, b *node) int {
	for _, s := range sorts {
		x, y := a, b
		for _, segment := range strings.Split(s.Field, ".") {
			x, y = x.member(segment), y.member(segment)
		}
		order := cmp.Compare(rank(x), rank(y))
		if order == 0 && x != nil && strings.IndexByte("0\"b", x.kind) >= 0 {
			order = compareScalars(x, y)
		}
		if s.Descending {
			order = -order
		}
		if order != 0 {
			return order
		}
	}
	return 0
}

func rank(n *node) int {
	if n == nil {
		return 0
	}
	return strings.IndexByte("n0\"{[b", n.kind)
}
