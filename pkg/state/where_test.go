package state_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A filter that is put together is the one that ParseFilter reads.
func TestWhereIsTheParsedFilter(t *testing.T) {
	for text, built := range map[string]state.Filter{
		`{"a":1}`:                                      state.Where("a").Eq(1),
		`{"a.b":{"$ne":"x"}}`:                          state.Where("a.b").Ne("x"),
		`{"a":null}`:                                   state.Where("a").Eq(nil),
		`{"a":9007199254740993}`:                       state.Where("a").Eq(int64(9007199254740993)),
		`{"a":{"$gt":1.5}}`:                            state.Where("a").Gt(1.5),
		`{"a":{"$gte":true}}`:                          state.Where("a").Gte(true),
		`{"a":{"$lt":"é"}}`:                            state.Where("a").Lt("é"),
		`{"a":{"$lte":2}}`:                             state.Where("a").Lte(uint8(2)),
		`{"a":{"$in":[1,"x",null]}}`:                   state.Where("a").In(1, "x", nil),
		`{"a":{"$in":[]}}`:                             state.Where("a").In(),
		`{"a":{"$nin":[1]}}`:                           state.Where("a").NotIn(1),
		`{"a":{"$exists":true}}`:                       state.Where("a").Exists(),
		`{"a":{"$exists":false}}`:                      state.Where("a").Missing(),
		`{"a":{"$contains":"x"}}`:                      state.Where("a").Contains("x"),
		`{"a":{"$startsWith":"x"}}`:                    state.Where("a").StartsWith("x"),
		`{"a":{"$endsWith":"x"}}`:                      state.Where("a").EndsWith("x"),
		`{"$and":[{"a":1},{"b":2},{"c":3}]}`:           state.Where("a").Eq(1).And(state.Where("b").Eq(2)).And(state.Where("c").Eq(3)),
		`{"$or":[{"a":1},{"b":2}]}`:                    state.Where("a").Eq(1).Or(state.Where("b").Eq(2)),
		`{"$not":{"$or":[{"a":1},{"b":2}]}}`:           state.Not(state.Where("a").Eq(1).Or(state.Where("b").Eq(2))),
		`{"b":1}`:                                      state.Filter{}.And(state.Where("b").Eq(1)),
		`{}`:                                           state.Filter{}.Or(state.Where("b").Eq(1)),
		`{"$and":[{"$or":[{"a":1},{"b":2}]},{"c":3}]}`: state.Where("a").Eq(1).Or(state.Where("b").Eq(2)).And(state.Where("c").Eq(3)),
	} {
		parsed, err := state.ParseFilter([]byte(text))
		require.NoError(t, err)
		require.NoError(t, built.Err())
		require.Equal(t, parsed.Root(), built.Root(), text)
	}
}

// What is wrong with a filter stays with it, whatever it is joined to, and a query returns it.
func TestWhereRefuses(t *testing.T) {
	deep := state.Where("a").Eq(1)
	for range state.MaxFilterDepth + 1 {
		deep = state.Not(deep)
	}
	many := state.Where("a").Eq(1)
	for range state.MaxFilterClauses {
		many = many.And(state.Where("a").Eq(1))
	}
	for name, f := range map[string]state.Filter{
		"path": state.Where("a..b").Eq(1), "no path": state.Where("").Eq(1), "operator as path": state.Where("$where").Eq("1"),
		"NaN": state.Where("a").Eq(math.NaN()), "infinite": state.Where("a").Gt(math.Inf(1)), "not UTF-8": state.Where("a").Eq("\xff"),
		"path not UTF-8": state.Where("a\xff").Eq(1), "object": state.Where("a").Eq(map[string]int{"b": 1}), "array": state.Where("a").Eq([]int{1}),
		"order of null": state.Where("a").Gt(nil), "channel": state.Where("a").Eq(make(chan int)), "not everything": state.Not(state.Filter{}),
		"many values": state.Where("a").In(make([]any, state.MaxFilterOperands+1)...), "deep": deep, "many": many,
	} {
		for _, f := range []state.Filter{f, f.And(state.Where("b").Eq(1)), state.Where("b").Eq(1).Or(f), state.Not(f)} {
			var wrong *state.FilterError
			require.ErrorAs(t, f.Err(), &wrong, name)
			require.ErrorIs(t, state.Query{Filter: f}.Validate(), state.ErrInvalid, name)
		}
	}
}

func TestIndexesOfAStore(t *testing.T) {
	for _, indexes := range [][]string{{"a..b"}, {""}, {"a", "a"}, {"a\x00"}, {"\xff"}, strings.Split(strings.Repeat("a.", 17), ".")} {
		_, err := state.NewFactory([]state.StoreConfig{{Name: "s", Backend: "b", Indexes: indexes}}, nil, state.Options{})
		require.ErrorIs(t, err, state.ErrInvalid, "%q", indexes)
		require.ErrorContains(t, err, "index")
	}
}

// FuzzWhere looks for paths and operands that make a filter which ParseFilter would not have made, or that panic.
func FuzzWhere(f *testing.F) {
	f.Add("a.b", "x", 1.5)
	f.Add("a\".b' OR 1=1 --", "\xff", math.NaN())
	f.Fuzz(func(t *testing.T, path, text string, number float64) {
		for _, filter := range []state.Filter{state.Where(path).Eq(text), state.Where(path).Lt(number), state.Where(path).In(text, number).And(state.Where(text).Missing())} {
			var wrong *state.FilterError
			if err := filter.Err(); err != nil && (!errors.As(err, &wrong) || filter.Root() != nil) {
				t.Fatalf("%T: %v, %v", err, err, filter.Root())
			} else if err == nil && filter.Root() == nil {
				t.Fatal("a condition matches everything")
			}
		}
	})
}
