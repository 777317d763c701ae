package sqlstate

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// An Index is what an engine keeps for one declared path, sorted: the kind of the value there, and the value when it is a
// string, a number or a boolean.
//
// Most members are scalars reached through objects alone, and what a filter asks of those is a range of the index, to be
// believed without a look at the value. The few values with an array at the path or on its way are of kinds of their own;
// for them the filter is evaluated as if there were no index.
type Index struct {
	Name string // the path as it is declared
	Path []string
	Hash string // stands for the path in names: 12 characters
	// Terms are what statements call what the index keeps of the rows e. Which there are is the engine's own business.
	Terms []Expr

	doubts *atomic.Int32 // how many queries are still to do without a statement that leaves out the composite kinds
	crowds *atomic.Int32 // and without one that hopes to find no more than the limit
}

// afterDoubt is how many queries by an index are asked at length after one that met a value of a composite kind: where there is
// one there are likely others.
const afterDoubt = 20

// Doubted is for an engine that left out the values of the composite kinds, and learnt that there are some.
func (ix Index) Doubted() { ix.doubts.Store(afterDoubt) }

// Doubtful reports whether it was learnt lately that there are values of the composite kinds, so that leaving them out is not
// worth the try.
func (ix Index) Doubtful() bool { return due(ix.doubts) }

// Overran is for an engine that hoped to find no more values than the limit, and found more.
func (ix Index) Overran() { ix.crowds.Store(afterDoubt) }

// Crowded reports whether one did lately, so that it is not worth the try.
func (ix Index) Crowded() bool { return due(ix.crowds) }

func due(n *atomic.Int32) bool { return n.Load() > 0 && n.Add(-1) >= 0 }

// The kinds of an index that are not ranks of a sort.
const (
	kindArray  = int(state.RankArray)
	KindPassed = int(state.RankBool) + 1 // there is an array on the way
)

// Composites are the kinds for which an index knows nothing.
func Composites(ix Index) []int {
	if len(ix.Path) == 1 {
		return []int{kindArray} // a value itself is no array to go into
	}
	return []int{kindArray, KindPassed}
}

// NewIndexes describes the indexes of paths that have been checked. terms gives each its Terms.
func NewIndexes(paths []string, terms func(ix Index) []Expr) ([]Index, error) {
	indexes := make([]Index, len(paths))
	for i, text := range paths {
		path, err := state.ParsePath(text)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256([]byte(text))
		indexes[i] = Index{Name: text, Path: path, Hash: hex.EncodeToString(sum[:6]), doubts: new(atomic.Int32), crowds: new(atomic.Int32)}
		indexes[i].Terms = terms(indexes[i])
	}
	return indexes, nil
}

// Names are the declared paths of indexes.
func Names(indexes []Index) []string {
	names := make([]string, len(indexes))
	for i, ix := range indexes {
		names[i] = ix.Name
	}
	return names
}

// JSONPath spells the index's path for an engine.
func (ix Index) JSONPath() string { return jsonPath(ix.Path) }

// Passed are the paths of the members on the way, which may be arrays.
func (ix Index) Passed() []string {
	var paths []string
	for n := 1; n < len(ix.Path); n++ {
		paths = append(paths, jsonPath(ix.Path[:n]))
	}
	return paths
}

// Literal is text as a string of SQL's standard, without escapes, for what cannot be bound: the definition of an index.
func Literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// An IndexDialect is how one engine spells what its indexes keep.
type IndexDialect interface {
	// Kept is what an index keeps of values of a kind: numbers, strings, or booleans as 0 and 1.
	Kept(ix Index, kind state.Rank) Expr
	// KeptNumber and KeptString are an operand as the index would keep it. exact is false when other operands would be
	// kept alike.
	KeptNumber(literal string) (e Expr, exact bool)
	KeptString(value string) (e Expr, exact bool)
}

// A Plan is a filter with one index to begin with.
type Plan struct {
	Index Index
	// Ranges are the parts of the index to look at: a scalar that satisfies Served is in one of them.
	Ranges []Range
	// Exact is true when every scalar in Ranges satisfies Served.
	Exact bool
	// Equal is true when those scalars are all the same.
	Equal bool
	// Served is what the index was chosen for; it has to be asked of values of the composite kinds, and when Ranges are not
	// exact, of all.
	Served state.Filter
	// Rest is what remains to be asked of every row.
	Rest state.Filter
}

// A Range is a part of an index: one kind, and the condition on what is kept of the value.
type Range struct {
	Kind int
	When Expr // empty: all of the kind
}

// Choose picks the index that a filter is best begun with: of those that its conditions ask for, joined by and, the one
// for an equality, else for one of several values, else for the beginning of a string, else for an order.
func Choose(d IndexDialect, indexes []Index, f state.Filter) (*Plan, bool) {
	if root := f.Root(); root != nil && root.Op != state.OpAnd { // the rule, in fewer steps
		for _, ix := range indexes {
			if cost(root.Op) < none && slices.Equal(ix.Path, root.Path) {
				p := &Plan{Index: ix, Served: f}
				p.Ranges, p.Exact = ranges(d, ix, root)
				p.Equal = p.Exact && root.Op == state.OpEq
				return p, true
			}
		}
		return nil, false
	}
	all := conjuncts(f.Root())
	best, bestCost := -1, none
	var chosen Index
	for i, c := range all {
		for _, ix := range indexes {
			if n := cost(c.Op); n < bestCost && slices.Equal(ix.Path, c.Path) {
				best, bestCost, chosen = i, n, ix
			}
		}
	}
	if best < 0 {
		return nil, false
	}
	p := &Plan{Index: chosen}
	p.Ranges, p.Exact = ranges(d, chosen, all[best])
	served := []*state.Clause{all[best]}
	rest := slices.Delete(slices.Clone(all), best, best+1)
	for i := 0; i < len(rest); {
		if !p.narrow(d, rest[i]) {
			i++
			continue
		}
		served = append(served, rest[i])
		rest = slices.Delete(rest, i, i+1)
	}
	p.Equal = p.Exact && all[best].Op == state.OpEq
	p.Served, p.Rest = state.FilterOf(served), state.FilterOf(rest)
	return p, true
}

// cost is how much of an index an operator is expected to ask for, the least first; none for one that it does not serve.
func cost(op state.Operator) int {
	switch op {
	case state.OpEq:
		return 1
	case state.OpIn:
		return 2
	case state.OpStartsWith:
		return 3
	case state.OpGt, state.OpGte, state.OpLt, state.OpLte:
		return 4
	default:
		return none
	}
}

const none = 5

// conjuncts are the conditions that must all hold.
func conjuncts(c *state.Clause) []*state.Clause {
	switch {
	case c == nil:
		return nil
	case c.Op != state.OpAnd:
		return []*state.Clause{c}
	}
	var all []*state.Clause
	for _, sub := range c.Clauses {
		all = append(all, conjuncts(sub)...)
	}
	return all
}

// narrow takes a further condition on the same member into a single range, such as the upper end beside the lower.
func (p *Plan) narrow(d IndexDialect, c *state.Clause) bool {
	if cost(c.Op) == none || !slices.Equal(c.Path, p.Index.Path) || len(p.Ranges) != 1 || len(c.Operands) != 1 {
		return false
	}
	more, exact := ranges(d, p.Index, c)
	if len(more) != 1 || more[0].Kind != p.Ranges[0].Kind || more[0].When.Text == "" || p.Ranges[0].When.Text == "" {
		return false
	}
	p.Ranges[0].When = SQL("@ AND @", p.Ranges[0].When, more[0].When)
	p.Exact = p.Exact && exact
	return true
}

// ranges are where in an index the scalars are that satisfy a comparison.
func ranges(d IndexDialect, ix Index, c *state.Clause) (all []Range, exact bool) {
	if c.Op == state.OpEq {
		kind, e, exact := kept(d, c.Operands[0])
		return []Range{{Kind: kind, When: whenEqual(d, ix, kind, e)}}, exact
	}
	var operands [int(state.RankBool) + 1][]Expr
	exact = true
	for _, o := range c.Operands {
		kind, e, same := kept(d, o)
		operands[kind] = append(operands[kind], e)
		exact = exact && same
	}
	for kind, es := range operands {
		if len(es) == 0 {
			continue
		}
		column := d.Kept(ix, state.Rank(kind))
		r := Range{Kind: kind}
		switch {
		case kind == int(state.RankNull):
		case c.Op == state.OpStartsWith && exact:
			end, _ := d.KeptString(c.Operands[0].Text + "\xff") // no byte of UTF-8
			r.When = SQL("@ >= @ AND @ < @", column, es[0], column, end)
		case len(es) > 1:
			r.When = SQL("@ IN (@)", column, Join(es, ", "))
		default:
			r.When = SQL("@ "+comparisonOf(c.Op, exact)+" @", column, es[0])
		}
		all = append(all, r)
	}
	return all, exact
}

func whenEqual(d IndexDialect, ix Index, kind int, e Expr) Expr {
	if kind == int(state.RankNull) {
		return Expr{}
	}
	return Expr{Text: d.Kept(ix, state.Rank(kind)).Text + " = " + e.Text, Args: e.Args}
}

func kept(d IndexDialect, o state.Operand) (kind int, e Expr, exact bool) {
	switch o.Kind {
	case state.Number:
		e, exact = d.KeptNumber(o.Text)
		return int(state.RankNumber), e, exact
	case state.String:
		e, exact = d.KeptString(o.Text)
		return int(state.RankString), e, exact
	case state.Bool:
		if o.Text == "true" {
			return int(state.RankBool), SQL("1"), true
		}
		return int(state.RankBool), SQL("0"), true
	default:
		return int(state.RankNull), Expr{}, true
	}
}

// comparisonOf takes in the end of a range when values there may lie within.
func comparisonOf(op state.Operator, exact bool) string {
	switch op {
	case state.OpGte:
		return ">="
	case state.OpLte:
		return "<="
	case state.OpGt:
		if exact {
			return ">"
		}
		return ">="
	case state.OpLt:
		if exact {
			return "<"
		}
		return "<="
	default: // one of the operands, or what begins with more than is kept
		return "="
	}
}
