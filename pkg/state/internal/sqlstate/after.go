package sqlstate

import (
	"strconv"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// After is the condition that a row comes after a position in the order of the sorts. key is the column that ends the
// order.
func After(d Dialect, doc Expr, sorts []state.Sort, key string, p *state.Position) (Expr, error) {
	after := SQL(key+" > @", Bind(p.Key))
	for i := len(sorts) - 1; i >= 0; i-- {
		path, err := state.ParsePath(sorts[i].Field)
		if err != nil {
			return Expr{}, err
		}
		l, place := d.At(doc, jsonPath(path)), p.Places[i]
		after = SQL("(@ OR (@ AND @))", beyond(d, l, place, sorts[i].Descending), level(d, l, place), after)
	}
	return after, nil
}

// beyond is the condition that a leaf comes after a place.
func beyond(d Dialect, l Leaf, p state.Place, descending bool) Expr {
	comparison := ">"
	if descending {
		comparison = "<"
	}
	otherType := SQL("@ "+comparison+" "+rank(p.Rank), d.Order(l)[0])
	switch p.Rank {
	case state.RankNumber:
		return SQL("(@ OR @)", otherType, d.Number(l, comparison, p.Text))
	case state.RankString:
		if most := d.SortedBytes(); len(p.Text) >= most { // what begins alike ties
			return SQL("(@ OR (@ AND NOT @))", otherType, d.String(l, comparison, p.Text[:most]), d.StartsWith(l, p.Text[:most]))
		}
		return SQL("(@ OR @)", otherType, d.String(l, comparison, p.Text))
	case state.RankBool:
		return SQL("(@ OR @)", otherType, boolean(d, l, comparison, p.Text == "true"))
	default: // ties of each other
		return otherType
	}
}

// level is the condition that a leaf ties with a place.
func level(d Dialect, l Leaf, p state.Place) Expr {
	switch p.Rank {
	case state.RankNumber:
		return d.Number(l, "=", p.Text)
	case state.RankString:
		if most := d.SortedBytes(); len(p.Text) >= most {
			return d.StartsWith(l, p.Text[:most])
		}
		return d.String(l, "=", p.Text)
	case state.RankBool:
		return d.Bool(l, p.Text == "true")
	default:
		return SQL("@ = "+rank(p.Rank), d.Order(l)[0])
	}
}

func rank(r state.Rank) string { return strconv.Itoa(int(r)) }
