package statetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A queryStore is a store with documents in it, one per key.
type queryStore struct {
	engine state.Engine
	state.Querier
}

// openQueries opens an empty store of its own, with indexes that are there, and fills it.
func openQueries(t *testing.T, d state.Driver, name string, documents map[string]string, indexes ...string) queryStore {
	t.Helper()
	ctx := t.Context()
	engine, err := d.Open(ctx, state.StoreConfig{Name: name, Backend: d.Backend(), TableName: "state_entries", Indexes: indexes})
	require.NoError(t, err)
	querier, ok := engine.(state.Querier)
	require.True(t, ok, "the engine of %s must be a state.Querier", d.Backend())
	indexer, able := engine.(state.Indexer) // one that is none keeps no indexes
	require.Eventually(t, func() bool {
		return len(indexes) == 0 || !able || len(indexer.Indexed()) == len(indexes)
	}, time.Minute, 5*time.Millisecond, "the indexes are made")
	var changes []state.Change
	for key, value := range documents {
		changes = append(changes, state.Change{Key: key, Value: []byte(value), Expiry: state.Never})
	}
	for batch := range slices.Chunk(changes, state.MaxBulkKeys) {
		outcomes, err := engine.Apply(ctx, batch)
		require.NoError(t, err)
		for i, o := range outcomes {
			require.True(t, o.Done, "document %s is saved: %v", batch[i].Key, o.Err)
		}
	}
	return queryStore{engine, querier}
}

// keys returns the keys that match, in the query's order, and checks that Count agrees.
func (s queryStore) keys(t *testing.T, filter string, q state.Query) []string {
	t.Helper()
	var err error
	q.Filter, err = state.ParseFilter([]byte(filter))
	require.NoError(t, err, "filter %s", filter)
	records, err := s.Query(t.Context(), q)
	require.NoError(t, err, "filter %s", filter)
	keys := []string{}
	for _, r := range records {
		require.True(t, r.Found, filter)
		keys = append(keys, r.Key)
	}
	if q.Limit == 0 && q.Offset == 0 && q.After == nil {
		n, err := s.Count(t.Context(), q.Filter)
		require.NoError(t, err, "filter %s", filter)
		require.EqualValues(t, len(keys), n, "Count and Query disagree on %s", filter)
	}
	return keys
}

// RunQueries checks an engine that is a state.Querier: that filters match what state.Filter says, that sorts and pages
// come in order, and, on thousands of random documents and filters, that the engine finds exactly the rows a plain
// evaluation in memory finds, in its order, with declared indexes and without. rounds is how often that is done, each time
// with 200 filters on 200 documents, or with indexes half of them on 200 others that have no arrays; 0: 5. With -short it is done once. open returns a driver on an empty database; the driver is closed by its test.
func RunQueries(t *testing.T, open func(t *testing.T) state.Driver, rounds int) {
	d := open(t)
	for _, c := range []struct {
		name string
		run  func(t *testing.T, d state.Driver, indexes ...string)
		on   []string
	}{
		{"operators", queryOperators, []string{"owner", "level", "active", "guild", "address.city"}},
		{"numbers", queryNumbers, []string{"n"}},
		{"arrays", queryArrays, []string{"tags", "items.id", "items.0.id", "tags.0"}},
		{"strings", queryStrings, []string{"s", "größe"}},
		{"sorting", querySorting, []string{"v", "v.x"}},
		{"paging", queryPaging, []string{"g"}},
		{"arrays that come and go", queryArraysChange, []string{"level", "a.b"}},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, d) })
		t.Run(c.name+" with indexes", func(t *testing.T) { c.run(t, d, c.on...) })
	}
	t.Run("only what is there", func(t *testing.T) { queryVisibility(t, d) })
	t.Run("hostile text", func(t *testing.T) { queryHostile(t, d) })
	t.Run("hostile indexes", func(t *testing.T) { queryHostileIndexes(t, open(t)) })
	t.Run("long strings with an index", func(t *testing.T) { queryLong(t, d) })
	t.Run("order of long strings", func(t *testing.T) { queryLongOrder(t, d) })
	t.Run("large filters", func(t *testing.T) { queryLarge(t, d) })
	t.Run("cancelled", func(t *testing.T) { queryCancelled(t, d) })
	t.Run("cursors", func(t *testing.T) { queryCursors(t, d) })
	t.Run("bad cursors", func(t *testing.T) { queryBadCursors(t, d) })
	t.Run("iterators", func(t *testing.T) { queryIterators(t, d) })
	t.Run("fields", func(t *testing.T) { queryFields(t, d) })
	switch {
	case testing.Short():
		rounds = 1
	case rounds == 0:
		rounds = 5
	}
	t.Run("as in memory", func(t *testing.T) {
		for round := range rounds {
			queryProperty(t, open(t), round%2 == 0)
		}
	})
}

// named keeps the stores with indexes apart from those without.
func named(name string, indexes []string) string {
	if len(indexes) > 0 {
		name += "-indexed"
	}
	return name
}

type filterCase struct{ filter, want string }

func (s queryStore) check(t *testing.T, cases []filterCase) {
	t.Helper()
	for _, c := range cases {
		require.Equal(t, strings.Fields(c.want), s.keys(t, c.filter, state.Query{}), "filter %s", c.filter)
	}
}

// What each operator matches, type bracketing and the complements among it.
func queryOperators(t *testing.T, d state.Driver, indexes ...string) {
	s := openQueries(t, d, named("q-operators", indexes), map[string]string{
		"a": `{"owner":"alice","level":10,"active":true,"guild":null,"address":{"city":"Ulm"}}`,
		"b": `{"owner":"bob","level":20.5,"active":false}`,
		"c": `{"owner":"Carol","level":"10","guild":"g","address":{"city":"Bonn"}}`,
		"d": `{"level":-1,"address":5}`,
		"e": `"alice"`,
	}, indexes...)
	s.check(t, []filterCase{
		{``, "a b c d e"},
		{`{}`, "a b c d e"},
		{`{"owner":"alice"}`, "a"},
		{`{"owner":{"$eq":"carol"}}`, ""},
		{`{"level":10}`, "a"},
		{`{"level":"10"}`, "c"},
		{`{"level":{"$ne":10}}`, "b c d e"},
		{`{"level":{"$gt":-1}}`, "a b"},
		{`{"level":{"$gte":-1,"$lt":20.5}}`, "a d"},
		{`{"level":{"$lte":20.5}}`, "a b d"},
		{`{"level":{"$gt":""}}`, "c"},
		{`{"active":true}`, "a"},
		{`{"active":{"$lt":true}}`, "b"},
		{`{"active":{"$gte":false}}`, "a b"},
		{`{"active":1}`, ""},
		{`{"guild":null}`, "a b d e"},
		{`{"guild":{"$ne":null}}`, "c"},
		{`{"guild":{"$exists":true}}`, "a c"},
		{`{"guild":{"$exists":false}}`, "b d e"},
		{`{"owner":{"$in":["bob","alice",7,null]}}`, "a b d e"},
		{`{"owner":{"$in":[]}}`, ""},
		{`{"owner":{"$nin":["bob","alice"]}}`, "c d e"},
		{`{"address.city":"Ulm"}`, "a"},
		{`{"address.city":null}`, "b d e"},
		{`{"address":null}`, "b e"},
		{`{"$and":[{"level":{"$gt":0}},{"active":true}]}`, "a"},
		{`{"$or":[{"owner":"bob"},{"address.city":"Bonn"}]}`, "b c"},
		{`{"$not":{"owner":"bob"}}`, "a c d e"},
		{`{"level":{"$not":{"$gt":10}}}`, "a c d e"},
		{`{"owner":{"$gte":"a"},"level":{"$exists":true}}`, "a b"},
	})
}

// Integers compare to the last digit, also with floats beside them; other numbers as floats.
func queryNumbers(t *testing.T, d state.Driver, indexes ...string) {
	s := openQueries(t, d, named("q-numbers", indexes), map[string]string{
		"a": `{"n":9007199254740992}`,
		"b": `{"n":9007199254740993}`,
		"c": `{"n":9007199254740992.0}`,
		"d": `{"n":0.1}`,
		"e": `{"n":1e2}`,
		"f": `{"n":100}`,
		"g": `{"n":-9223372036854775808}`,
		"h": `{"n":9223372036854775807}`,
		"i": `{"n":1.5e300}`,
		"j": `{"n":-0}`,
		"k": `{"n":18446744073709551615}`,
	}, indexes...)
	s.check(t, []filterCase{
		{`{"n":9007199254740993}`, "b"},
		{`{"n":9007199254740992}`, "a c"},
		{`{"n":{"$gt":9007199254740992}}`, "b h i k"},
		{`{"n":{"$lt":9007199254740993,"$gt":1000}}`, "a c"},
		{`{"n":0.1}`, "d"},
		{`{"n":100.0}`, "e f"},
		{`{"n":0}`, "j"},
		{`{"n":{"$lte":-9223372036854775808}}`, "g"},
		{`{"n":9223372036854775807}`, "h"},
		{`{"n":{"$gt":9223372036854775807}}`, "i k"},
		{`{"n":{"$in":[9223372036854775806,18446744073709551615]}}`, "k"},
	})
	require.Equal(t, strings.Fields("g j d e f a c b h k i"), s.keys(t, ``, state.Query{Sort: []state.Sort{{Field: "n"}}}))
}

// An array matches by its elements; a path goes into objects in arrays, and to an element by its index.
func queryArrays(t *testing.T, d state.Driver, indexes ...string) {
	s := openQueries(t, d, named("q-arrays", indexes), map[string]string{
		"a": `{"tags":["pvp","eu"],"items":[{"id":1,"n":2},{"id":2}]}`,
		"b": `{"tags":["us"],"items":{"id":1}}`,
		"c": `{"tags":[],"items":[]}`,
		"d": `{"tags":"pvp","items":[1,2]}`,
		"e": `{"tags":[["pvp"]],"items":[[{"id":1}]]}`,
		"f": `{"tags":[null,3],"items":{"0":{"id":7},"id":null}}`,
	}, indexes...)
	s.check(t, []filterCase{
		{`{"tags":"pvp"}`, "a d"},
		{`{"tags":{"$ne":"pvp"}}`, "b c e f"},
		{`{"tags":{"$in":["us","eu"]}}`, "a b"},
		{`{"tags":null}`, "f"},
		{`{"tags":{"$gt":2}}`, "f"},
		{`{"tags":{"$startsWith":"p"}}`, "a d"},
		{`{"tags.0":"pvp"}`, "a e"},
		{`{"tags.1":{"$exists":true}}`, "a f"},
		{`{"items.id":1}`, "a b"},
		{`{"items.id":{"$gte":2}}`, "a"},
		{`{"items.n":null}`, "a b f"},
		{`{"items.n":{"$exists":false}}`, "b c d e f"},
		{`{"items.id":null}`, "f"},
		{`{"items.0.id":1}`, "a e"},
		{`{"items.0.id":7}`, "f"},
		{`{"items.1.id":2}`, "a"},
		{`{"items.id":{"$gt":0,"$lt":2}}`, "a b"},
	})
}

// Strings compare by code point, case and trailing blanks included, also where they are escaped or not ASCII.
func queryStrings(t *testing.T, d state.Driver, indexes ...string) {
	s := openQueries(t, d, named("q-strings", indexes), map[string]string{
		"a":  `{"s":"Straße","größe":1}`,
		"b":  `{"s":"straße ","\u0067r\u00f6ße":2}`,
		"c":  `{"s":"\u0053tra\u00dfe"}`,
		"d":  `{"s":"😀"}`,
		"e":  `{"s":"\ud83d\ude00!"}`,
		"f":  `{"s":"\uffee"}`,
		"g":  `{"s":"tab\tquote\"back\\"}`,
		"h":  `{"s":""}`,
		"i":  `{"s":"50%_x"}`,
		"A ": `{"s":"trailing"}`,
		"A":  `{"s":"trailing"}`,
	}, indexes...)
	s.check(t, []filterCase{
		{`{"s":"Straße"}`, "a c"},
		{`{"s":"straße"}`, ""},
		{`{"s":"straße "}`, "b"},
		{`{"größe":{"$exists":true}}`, "a b"},
		{`{"gr\u00f6ße":2}`, "b"},
		{`{"s":"😀"}`, "d"},
		{`{"s":{"$gt":"\uffee"}}`, "d e"},
		{`{"s":{"$startsWith":"😀"}}`, "d e"},
		{`{"s":{"$endsWith":"e "}}`, "b"},
		{`{"s":{"$contains":"ß"}}`, "a b c"},
		{`{"s":{"$contains":"_"}}`, "i"},
		{`{"s":{"$contains":"%"}}`, "i"},
		{`{"s":{"$startsWith":"S"}}`, "a c"},
		{`{"s":"tab\tquote\"back\\"}`, "g"},
		{`{"s":{"$endsWith":"\\"}}`, "g"},
		{`{"s":""}`, "h"},
		{`{"s":{"$in":["","50%_x"]}}`, "h i"},
	})
	require.Equal(t, []string{"A", "A "}, s.keys(t, `{"s":"trailing"}`, state.Query{}))
	require.Len(t, s.keys(t, `{"s":{"$contains":""}}`, state.Query{}), 11)
	require.Len(t, s.keys(t, `{"s":{"$startsWith":""}}`, state.Query{}), 11)
	require.Len(t, s.keys(t, `{"s":{"$endsWith":""}}`, state.Query{}), 11)
}

// Types in MongoDB's order, values within them, ties by key.
func querySorting(t *testing.T, d state.Driver, indexes ...string) {
	s := openQueries(t, d, named("q-sorting", indexes), map[string]string{
		"a": `{"v":true}`, "b": `{"v":[1]}`, "c": `{"v":{"x":2}}`, "d": `{"v":"b"}`, "e": `{"v":2}`, "f": `{"v":null}`,
		"g": `{}`, "h": `{"v":"B"}`, "i": `{"v":-1.5}`, "j": `{"v":false}`, "k": `{"v":{"x":1}}`, "l": `{"v":[0]}`, "m": `{"v":2.0}`,
	}, indexes...)
	for _, c := range []struct {
		sort []state.Sort
		want string
	}{
		{nil, "a b c d e f g h i j k l m"},
		{[]state.Sort{{Field: "v"}}, "f g i e m h d c k b l j a"},
		{[]state.Sort{{Field: "v", Descending: true}}, "a j b l c k d h e m i f g"},
		{[]state.Sort{{Field: "v.x"}, {Field: "v", Descending: true}}, "a j b l d h e m i f g k c"},
	} {
		require.Equal(t, strings.Fields(c.want), s.keys(t, ``, state.Query{Sort: c.sort}), "sort %v", c.sort)
	}
}

// Limit and offset cut the ordered result, so that pages neither repeat nor leave out a row.
func queryPaging(t *testing.T, d state.Driver, indexes ...string) {
	documents := map[string]string{}
	for i := range 25 {
		documents[fmt.Sprintf("k%02d", i)] = fmt.Sprintf(`{"g":%d}`, i%3)
	}
	s := openQueries(t, d, named("q-paging", indexes), documents, indexes...)
	order := []state.Sort{{Field: "g", Descending: true}}
	all := s.keys(t, `{}`, state.Query{Sort: order})
	require.Len(t, all, 25)
	var paged []string
	for offset := 0; offset < 30; offset += 10 {
		paged = append(paged, s.keys(t, `{}`, state.Query{Sort: order, Limit: 10, Offset: offset})...)
	}
	require.Equal(t, all, paged)
	require.Equal(t, all[20:], s.keys(t, `{}`, state.Query{Sort: order, Offset: 20}))
	require.Empty(t, s.keys(t, `{}`, state.Query{Sort: order, Offset: 25}))
}

// A query sees its own store alone, not what was deleted or has expired, and reads all that Get reads.
func queryVisibility(t *testing.T, d state.Driver) {
	ctx := t.Context()
	openQueries(t, d, "q-other", map[string]string{"x": `{"v":1}`})
	s := openQueries(t, d, "q-visible", map[string]string{"a": `{"v":1}`, "b": `{"v":1}`, "c": `{"v":1}`})
	_, err := s.engine.Apply(ctx, []state.Change{
		{Key: "a", Delete: true},
		{Key: "b", Value: []byte(`{"v":1,"n":12345678901234567890.10}`), Expiry: state.After(time.Hour)},
		{Key: "c", Value: []byte(`{"v":1}`), Expiry: state.After(time.Millisecond)},
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		records, err := s.Query(ctx, state.Query{})
		return err == nil && len(records) == 1
	}, 5*time.Second, 5*time.Millisecond)
	records, err := s.Query(ctx, state.Query{})
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, s.keys(t, `{"v":1}`, state.Query{}))
	got, err := s.engine.Get(ctx, []string{"b"})
	require.NoError(t, err)
	require.Equal(t, got, records)
	require.EqualValues(t, 2, records[0].Version)
	require.Contains(t, string(records[0].Value), "12345678901234567890.10")
}

// hostile are texts that break statements, patterns or paths composed carelessly.
func hostile() []string {
	texts := []string{
		`' OR '1'='1`, `"; DROP TABLE state_entries; --`, `\`, `\'`, `'`, `"`, `""`, `$`, `$.a`, `a"b`, `a\"b`, `a]b`, `[*]`, `*`, `**`, `%`, `_`, `?`, `@`,
		`/* x */`, `-- x`, `#`, "`", `:a`, `@a`, `{`, `}`, `null`, `é`, `名前`, `😀`, "\u00a0", `a b`, ` `, `0`, `-1`, `1e5`, `00`, `last`, `#-1`, `a=b&c`,
		"\ufeff", "\u2028", `$x`, `\u0041`, `\\u0041`, `x'41'`, `;`, `,`, `(`, `)`, strings.Repeat("ü", 200), strings.Repeat(`"`, 50), strings.Repeat(`\`, 51),
	}
	for c := ' '; c <= '~'; c++ {
		texts = append(texts, string([]rune{c, 'X', c, 'Y'}))
	}
	return texts
}

// Whatever a member or a value is called, a filter finds it and nothing else, and breaks nothing.
func queryHostile(t *testing.T, d state.Driver) {
	documents := map[string]string{}
	for i, text := range hostile() {
		q := quote(text)
		documents[fmt.Sprintf("k%03d", i)] = `{` + q + `:` + q + `,"o":{` + q + `:1},"v":` + q + `}`
	}
	s := openQueries(t, d, "q-hostile", documents)
	for i, text := range hostile() {
		key, q := []string{fmt.Sprintf("k%03d", i)}, quote(text)
		for _, filter := range []string{
			`{"v":` + q + `}`,
			`{"v":{"$in":[` + q + `,"nothing","nowhere"]}}`,
			`{"v":{"$gte":` + q + `,"$lte":` + q + `}}`, `{"v":{"$startsWith":` + q + `,"$endsWith":` + q + `,"$contains":` + q + `,"$lte":` + q + `}}`,
		} {
			require.Equal(t, key, s.keys(t, filter, state.Query{}), "filter %s", filter)
		}
		if strings.Contains(text, ".") || text[0] == '-' {
			continue // a path of several segments, or one that is refused
		}
		require.Equal(t, key, s.keys(t, `{`+quote("o."+text)+`:1}`, state.Query{}), "member %s", q)
		require.Equal(t, key[0], s.keys(t, ``, state.Query{Sort: []state.Sort{{Field: "o." + text, Descending: true}}})[0], "sort by %s", q)
		if !strings.HasPrefix(text, "$") {
			require.Equal(t, key, s.keys(t, `{`+q+`:`+q+`}`, state.Query{}), "member %s", q)
		}
	}
	require.Len(t, s.keys(t, ``, state.Query{}), len(hostile()))
}

// The largest filters that ParseFilter accepts are evaluated.
func queryLarge(t *testing.T, d state.Driver) {
	s := openQueries(t, d, "q-large", map[string]string{"a": `{"n":999,"s":"999"}`, "b": `{"n":-5}`})
	var numbers, strs, clauses []string
	for i := range state.MaxFilterOperands {
		numbers = append(numbers, strconv.Itoa(i))
		strs = append(strs, quote(strconv.Itoa(i)))
	}
	for i := range state.MaxFilterClauses {
		clauses = append(clauses, fmt.Sprintf(`{"m%d.x":%d}`, i, i))
	}
	clauses[7] = `{"n":-5}`
	deep := strings.Repeat(`{"$not":`, state.MaxFilterDepth) + `{"n":-5}` + strings.Repeat(`}`, state.MaxFilterDepth)
	path := strings.Repeat("p.", state.MaxPathSegments-1) + "p"
	s.check(t, []filterCase{
		{`{"n":{"$in":[` + strings.Join(numbers, ",") + `]}}`, "a"},
		{`{"s":{"$in":[` + strings.Join(strs, ",") + `]}}`, "a"},
		{`{"$or":[` + strings.Join(clauses, ",") + `]}`, "b"},
		{`{"$and":[` + strings.Join(clauses, ",") + `]}`, ""},
		{deep, "b"},
		{`{"` + path + `":null}`, "a b"},
		{`{"` + path + `":{"$exists":true}}`, ""},
		{`{"p` + strings.Repeat(".0", 4) + `":1}`, ""},
	})
	_, err := state.ParseFilter([]byte(strings.Replace(deep, `{`, `{"$not":{`, 1) + `}`))
	require.ErrorIs(t, err, state.ErrInvalid)
	// An index may also be a member's name: with each one there are twice as many ways to look, for every value.
	manyWays, err := state.ParseFilter([]byte(`{"p` + strings.Repeat(".0", 16) + `":1}`))
	require.NoError(t, err)
	_, err = s.Query(t.Context(), state.Query{Filter: manyWays})
	require.ErrorIs(t, err, state.ErrInvalid)
}

// A query ends with its context.
func queryCancelled(t *testing.T, d state.Driver) {
	s := openQueries(t, d, "q-cancelled", nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Query(ctx, state.Query{})
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Count(ctx, state.Filter{})
	require.ErrorIs(t, err, context.Canceled)
}

// Random documents and filters: the engine and the evaluation in memory find the same rows in the same order, as a whole,
// in pages by number and in pages by position.
func queryProperty(t *testing.T, d state.Driver, indexed bool) {
	const filters = 200
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, with indexes %v", seed, indexed)
	random := rand.New(rand.NewPCG(seed, 1))
	if !indexed {
		queryRandom(t, d, "q-property", generator{Rand: random}, seed, filters)
		return
	}
	indexes := []string{"a", "b", "x", "a.b", "b.0", "x.a", "x.1.é"}
	queryRandom(t, d, "q-property", generator{Rand: random}, seed, filters/2, indexes...)
	// Engines may have statements of their own for an index without arrays.
	queryRandom(t, d, "q-property-flat", generator{Rand: random, flat: true, paths: indexes}, seed, filters/2, indexes...)
}

func queryRandom(t *testing.T, d state.Driver, name string, g generator, seed uint64, filters int, indexes ...string) {
	const documents = 200
	values, nodes := map[string]string{}, map[string]*node{}
	for i := range documents {
		key := fmt.Sprintf("k%03d", i)
		values[key] = g.document()
		var err error
		nodes[key], err = parse([]byte(values[key]))
		require.NoError(t, err, values[key])
	}
	s := openQueries(t, d, name, values, indexes...)
	matched := 0
	for range filters {
		text, sorts := g.filter(3), g.sorts()
		filter, err := state.ParseFilter([]byte(text))
		require.NoError(t, err, "seed %d: filter %s", seed, text)
		want := []string{}
		for key, n := range nodes {
			if matches(filter.Root(), n) {
				want = append(want, key)
			}
		}
		slices.SortFunc(want, func(a, b string) int {
			if order := compareBy(sorts, nodes[a], nodes[b]); order != 0 {
				return order
			}
			return strings.Compare(a, b)
		})
		matched += len(want)
		got := s.keys(t, text, state.Query{Sort: sorts})
		for key, value := range values {
			if slices.Contains(want, key) != slices.Contains(got, key) {
				t.Fatalf("seed %d: filter %s\ndocument %s\nfound %v, expected %v", seed, text, value, slices.Contains(got, key), slices.Contains(want, key))
			}
		}
		require.Equal(t, want, got, "seed %d: order of %s by %v", seed, text, sorts)
		if len(want) == 0 {
			continue
		}
		offset, limit := g.IntN(len(want)), 1+g.IntN(len(want))
		require.Equal(t, want[offset:min(offset+limit, len(want))], s.keys(t, text, state.Query{Sort: sorts, Offset: offset, Limit: limit}),
			"seed %d: rows %d to %d of %s by %v", seed, offset, offset+limit, text, sorts)
		q := state.Query{Filter: filter, Sort: sorts, Limit: limit}
		require.Equal(t, want[:limit], s.keys(t, text, q), "seed %d: the first %d of %s by %v", seed, limit, text, sorts)
		at, err := state.PositionOf(state.Record{Key: want[offset], Value: []byte(values[want[offset]])}, sorts)
		require.NoError(t, err)
		q.After = &at
		rest := want[offset+1:]
		require.Equal(t, rest[:min(limit, len(rest))], s.keys(t, text, q), "seed %d: rows after %v of %s by %v", seed, at, text, sorts)
	}
	require.Greater(t, matched, documents, "seed %d: the filters match too little to tell anything", seed)
}

// A generator makes documents and filters out of few names and values, so that they meet often.
type generator struct {
	*rand.Rand
	flat  bool     // documents have no arrays
	paths []string // that every other filter asks for
}

func pick[T any](g generator, from []T) T { return from[g.IntN(len(from))] }

func (g generator) name() string {
	return pick(g, []string{"a", "b", "c", "0", "1", "é", `q"q`, `b\s`, "a b"})
}

func (g generator) scalar() string {
	if g.IntN(4) == 0 {
		return strconv.Itoa(g.IntN(6) - 2)
	}
	return pick(g, []string{"null", "true", "false", `""`, `"a"`, `"A"`, `"ab"`, `"b "`, `"é"`, `"\u00e9x"`, `"😀"`, `"\uffff"`, `"1"`, `"null"`,
		"0", "-0.0", "0.5", "1.0", "1e0", "2.50", "-2", "9007199254740992", "9007199254740993", "9007199254740992.0", "9007199254740994.0", "-9007199254740993",
		"9223372036854775807", "9223372036854775806", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "1152921504606846977", "1.152921504606846976e18",
		"18446744073709551615", "123456789012345678901234567890", "1e300", "-1e300", "0.1", "0.30000000000000004", "1e-7"})
}

func (g generator) value(depth int) string {
	switch n := g.IntN(10); {
	case depth == 0 || n < 5:
		return g.scalar()
	case n < 8 || g.flat:
		return g.object(depth - 1)
	default:
		elements := make([]string, g.IntN(4))
		for i := range elements {
			elements[i] = g.value(depth - 1)
		}
		return "[" + strings.Join(elements, ",") + "]"
	}
}

func (g generator) object(depth int) string {
	var members []string
	seen := map[string]bool{}
	for range g.IntN(4) {
		if name := g.name(); !seen[name] {
			seen[name] = true
			members = append(members, quote(name)+":"+g.value(depth))
		}
	}
	return "{" + strings.Join(members, ",") + "}"
}

func (g generator) document() string {
	if g.IntN(20) == 0 {
		return g.value(2)
	}
	return `{"a":` + g.value(3) + `,"b":` + g.value(3) + `,"x":` + g.object(2) + `}`
}

func (g generator) path() string {
	if len(g.paths) > 0 && g.IntN(2) == 0 {
		return pick(g, g.paths)
	}
	path := pick(g, []string{"a", "b", "x", "c"})
	for range g.IntN(3) {
		path += "." + g.name()
	}
	return path
}

func (g generator) filter(depth int) string {
	if depth > 0 && g.IntN(3) == 0 {
		sub := func() string { return g.filter(depth - 1) }
		return pick(g, []func() string{
			func() string { return `{"$and":[` + sub() + `,` + sub() + `]}` },
			func() string { return `{"$or":[` + sub() + `,` + sub() + `]}` },
			func() string { return `{"$not":` + sub() + `}` },
		})()
	}
	return `{` + quote(g.path()) + `:` + g.condition() + `}`
}

func (g generator) condition() string {
	operand := g.scalar()
	switch op := pick(g, []string{"", "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$contains", "$startsWith", "$endsWith", "$not"}); op {
	case "":
		return operand
	case "$gt", "$gte", "$lt", "$lte":
		for operand == "null" {
			operand = g.scalar()
		}
		return `{"` + op + `":` + operand + `}`
	case "$in", "$nin":
		return `{"` + op + `":[` + operand + `,` + g.scalar() + `,` + g.scalar() + `]}`
	case "$exists":
		return `{"$exists":` + pick(g, []string{"true", "false"}) + `}`
	case "$contains", "$startsWith", "$endsWith":
		return `{"` + op + `":` + pick(g, []string{`""`, `"a"`, `"b"`, `"é"`, `"x"`, `" "`, `"😀"`}) + `}`
	case "$not":
		return `{"$not":{"$eq":` + operand + `}}`
	default:
		return `{"` + op + `":` + operand + `}`
	}
}

func (g generator) sorts() []state.Sort {
	var sorts []state.Sort
	for range g.IntN(3) {
		sorts = append(sorts, state.Sort{Field: g.path(), Descending: g.IntN(2) == 0})
	}
	return sorts
}

// quote writes a string as JSON.
func quote(s string) string {
	q, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		panic(errors.Join(errors.New("not UTF-8"), err))
	}
	return string(q)
}
