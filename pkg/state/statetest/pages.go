package statetest

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// player is the value of the stores that are read page by page.
type player struct {
	Name  string `json:"name"`
	Level int    `json:"level"`
}

// openPlayers opens a store of its own with players k000 to k099, ten of each level.
func openPlayers[T any](t *testing.T, d state.Driver) *state.QueryableStore[T] {
	t.Helper()
	name := newName()
	f := factory(t, d, state.Options{}, state.StoreConfig{Name: name, Indexes: []string{"level"}})
	players, err := state.OpenQueryable[player](t.Context(), f, name)
	require.NoError(t, err)
	items := make([]state.Item[player], 100)
	for i := range items {
		items[i] = state.Item[player]{Key: fmt.Sprintf("k%03d", i), Value: player{Name: fmt.Sprintf("p%d", i), Level: i % 10}}
	}
	_, err = players.SaveBulk(t.Context(), items)
	require.NoError(t, err)
	s, err := state.OpenQueryable[T](t.Context(), f, name)
	require.NoError(t, err)
	return s
}

// Who goes from page to page by cursor meets every entry once that is there from beginning to end, whatever is written and
// deleted between the pages, the entries at their ends included.
func queryCursors(t *testing.T, d state.Driver) {
	ctx := t.Context()
	s := openPlayers[player](t, d)
	q := state.Query{Filter: state.Where("level").Lt(8), Sort: []state.Sort{{Field: "level", Descending: true}}}
	all, err := s.Query(ctx, q)
	require.NoError(t, err)
	require.Len(t, all, 80)
	var got []string
	cursor := ""
	for page := 0; ; page++ {
		result, err := s.QueryAfter(ctx, q, cursor, 9)
		require.NoError(t, err)
		for _, e := range result.Items {
			require.Less(t, e.Value.Level, 8)
			if strings.HasPrefix(e.Key, "k") {
				got = append(got, e.Key)
			}
		}
		if cursor = result.Next; cursor == "" {
			break
		}
		require.Len(t, result.Items, 9)
		_, err = s.Delete(ctx, result.Items[8].Key)
		require.NoError(t, err)
		for _, level := range []int{7, 0} { // before and after where this is
			_, err = s.Save(ctx, fmt.Sprintf("new-%d-%d", page, level), player{Level: level})
			require.NoError(t, err)
		}
	}
	want := make([]string, len(all))
	for i, e := range all {
		want[i] = e.Key
	}
	require.Equal(t, want, got)

	last, err := s.QueryAfter(ctx, state.Query{Filter: state.Where("level").Eq(9)}, "", 10)
	require.NoError(t, err)
	require.Len(t, last.Items, 10)
	require.Empty(t, last.Next, "a page that is full to the last entry is the last")
}

// Strings longer than what an engine sorts by are met once each, from page to page, in whichever order.
func queryLongOrder(t *testing.T, d state.Driver) {
	documents := map[string]string{}
	for i := range 12 {
		documents[fmt.Sprintf("k%02d", i)] = fmt.Sprintf(`{"s":"x%s%d"}`, strings.Repeat("ü", 400+i%3*50+i%4*2000), (i*7)%12)
	}
	for _, indexes := range [][]string{nil, {"s"}} {
		s := openQueries(t, d, named("q-long-order", indexes), documents, indexes...)
		for _, descending := range []bool{false, true} {
			var got []string
			q := state.Query{Sort: []state.Sort{{Field: "s", Descending: descending}}, Limit: 1}
			for {
				keys := s.keys(t, ``, q)
				if len(keys) == 0 {
					break
				}
				got = append(got, keys[0])
				require.LessOrEqual(t, len(got), 12, "%v", got)
				at, err := state.PositionOf(state.Record{Key: keys[0], Value: []byte(documents[keys[0]])}, q.Sort)
				require.NoError(t, err)
				q.After = &at
			}
			require.Equal(t, s.keys(t, ``, state.Query{Sort: q.Sort}), got)
			require.Len(t, got, 12)
		}
	}
}

// A cursor that is damaged, forged or of another query is refused, and never an answer.
func queryBadCursors(t *testing.T, d state.Driver) {
	ctx := t.Context()
	s, other := openPlayers[player](t, d), openPlayers[player](t, d)
	q := state.Query{Filter: state.Where("level").Gte(2), Sort: []state.Sort{{Field: "name"}}}
	page, err := s.QueryAfter(ctx, q, "", 5)
	require.NoError(t, err)
	require.NotEmpty(t, page.Next)
	refused := func(s *state.QueryableStore[player], q state.Query, cursor string) {
		t.Helper()
		_, err := s.QueryAfter(ctx, q, cursor, 5)
		require.ErrorIs(t, err, state.ErrCursor, "cursor %.100q", cursor)
		require.ErrorIs(t, err, state.ErrInvalid)
	}
	for i := range page.Next {
		for _, c := range []string{"A", "_", "", "=", "\xff", "'"} {
			if bad := page.Next[:i] + c + page.Next[i+1:]; bad != page.Next {
				refused(s, q, bad)
			}
		}
	}
	for _, text := range append(hostile(), strings.Repeat("A", state.MaxCursorBytes+4)) {
		refused(s, q, text)
		refused(s, q, base64.RawURLEncoding.EncodeToString([]byte("\x01"+text)))
	}
	refused(other, q, page.Next)
	changed := q
	changed.Filter = state.Where("level").Gte(3)
	refused(s, changed, page.Next)
	changed = q
	changed.Sort = []state.Sort{{Field: "name", Descending: true}}
	refused(s, changed, page.Next)
	changed.Sort = nil
	refused(s, changed, page.Next)
	changed = q
	changed.Limit = 3
	_, err = s.QueryAfter(ctx, changed, "", 5)
	require.ErrorIs(t, err, state.ErrInvalid)

	_, err = s.Save(ctx, "k000", player{Name: strings.Repeat("a", state.MaxCursorBytes), Level: 5})
	require.NoError(t, err)
	_, err = s.QueryAfter(ctx, q, "", 1)
	require.ErrorIs(t, err, state.ErrInvalid, "a cursor that would be too long is not made")
	require.ErrorContains(t, err, "too long for a cursor")
}

// An iterator yields what a query returns, ends when its reader does, and with the error that it meets.
func queryIterators(t *testing.T, d state.Driver) {
	ctx := t.Context()
	s := openPlayers[player](t, d)
	items := make([]state.Item[player], 700)
	for i := range items {
		items[i] = state.Item[player]{Key: fmt.Sprintf("m%03d", i), Value: player{Level: i % 3}}
	}
	_, err := s.SaveBulk(ctx, items)
	require.NoError(t, err)
	for _, q := range []state.Query{
		{}, {Sort: []state.Sort{{Field: "level"}}}, {Limit: 600, Offset: 5, Sort: []state.Sort{{Field: "name", Descending: true}, {Field: "level"}}},
		{Limit: 250}, {Limit: 1}, {Filter: state.Where("level").Gt(100)},
	} {
		want, err := s.Query(ctx, q)
		require.NoError(t, err)
		got := []state.Entry[player]{}
		for e, err := range s.All(ctx, q) {
			require.NoError(t, err)
			got = append(got, e)
		}
		require.Len(t, got, len(want))
		require.True(t, slices.Equal(want, got), "the entries of %v differ", q)
	}
	seen := 0
	for _, err := range s.All(ctx, state.Query{}) {
		require.NoError(t, err)
		if seen++; seen == 3 {
			break
		}
	}
	require.Equal(t, 3, seen)
	errs := 0
	for e, err := range s.All(ctx, state.Query{Filter: state.Where("a..b").Eq(1)}) {
		require.ErrorIs(t, err, state.ErrInvalid)
		require.Zero(t, e)
		errs++
	}
	require.Equal(t, 1, errs)
}

// A query that names fields returns these members as they were written, and nothing else.
func queryFields(t *testing.T, d state.Driver) {
	ctx := t.Context()
	s := openPlayers[jsontext.Value](t, d)
	_, err := s.Save(ctx, "z", jsontext.Value(`{ "level" : 77, "a":{"b": 1.10,"c":2,"d":{"e":[1, 2]}},"list":[{"x":9007199254740993,"y":1},5,[{"x":1},"t"],{"y":2}], "q\"":"\u00e9" , "n":null }`))
	require.NoError(t, err)
	for _, c := range []struct {
		fields []string
		want   string
	}{
		{nil, ""},
		{[]string{"level"}, `{"level":77}`},
		{[]string{"a.b", "n", "absent"}, `{"a":{"b":1.10},"n":null}`},
		{[]string{"a.d", "a"}, `{"a":{"b": 1.10,"c":2,"d":{"e":[1, 2]}}}`},
		{[]string{"list.x"}, `{"list":[{"x":9007199254740993},[{"x":1}],{}]}`},
		{[]string{`q"`}, `{"q\"":"\u00e9"}`},
		{[]string{"level.x", "a.b.c"}, `{"a":{}}`},
	} {
		q := state.Query{Filter: state.Where("level").Eq(77), Fields: c.fields, Sort: []state.Sort{{Field: "a.c"}}}
		found, err := s.Query(ctx, q)
		require.NoError(t, err)
		require.Len(t, found, 1)
		if c.want != "" {
			require.Equal(t, c.want, string(found[0].Value), "fields %v", c.fields)
		}
		require.NotEmpty(t, found[0].ETag)
	}
	_, err = s.Save(ctx, "y", jsontext.Value(`[{"level":77}]`))
	require.NoError(t, err)
	page, err := s.QueryAfter(ctx, state.Query{Fields: []string{"level"}, Sort: []state.Sort{{Field: "name"}}}, "", 2)
	require.NoError(t, err)
	require.Equal(t, "{}", string(page.Items[0].Value), "a value that is no object has no members")
	require.NotEmpty(t, page.Next, "what a query is sorted by need not be among the fields")
	for _, fields := range [][]string{{""}, {"a..b"}, {"a\n"}, {"\xff"}, make([]string, state.MaxFields+1)} {
		_, err := s.Query(ctx, state.Query{Fields: fields})
		require.ErrorIs(t, err, state.ErrInvalid)
	}
}

// An index of any name is made, finds what it should, and breaks nothing.
func queryHostileIndexes(t *testing.T, d state.Driver) {
	var texts []string
	for _, text := range hostile() {
		if !strings.Contains(text, ".") && text[0] != '-' && !strings.HasPrefix(text, "$") {
			texts = append(texts, text)
		}
	}
	for part := range slices.Chunk(texts[:18], 9) { // a table of MariaDB has room for the definitions of some twenty
		documents, indexes := map[string]string{}, []string{}
		for i, text := range part {
			documents[fmt.Sprintf("k%02d", i)] = `{` + quote(text) + `:` + quote(text) + `,"o":{` + quote(text) + `:1}}`
			indexes = append(indexes, text)
		}
		s := openQueries(t, d, newName(), documents, indexes...)
		for i, text := range part {
			key := []string{fmt.Sprintf("k%02d", i)}
			require.Equal(t, key, s.keys(t, `{`+quote(text)+`:`+quote(text)+`}`, state.Query{}), "member %q", text)
			require.Equal(t, key, s.keys(t, `{`+quote(text)+`:{"$startsWith":`+quote(text)+`}}`, state.Query{}), "member %q", text)
			require.Equal(t, key[0], s.keys(t, ``, state.Query{Limit: 1, Sort: []state.Sort{{Field: text, Descending: true}}})[0], "sort by %q", text)
		}
		require.Len(t, s.keys(t, ``, state.Query{}), len(part))
	}
}

// An index that keeps only the beginning of a string is no reason to find others, or to miss it.
func queryLong(t *testing.T, d state.Driver) {
	long := strings.Repeat("ü", 127) // 254 bytes
	s := openQueries(t, d, "q-long", map[string]string{
		"a": `{"s":"` + long + `"}`, "b": `{"s":"` + long + `x"}`, "c": `{"s":"` + long + `xy"}`, "d": `{"s":"` + long + `xz"}`,
		"e": `{"s":"` + long + `ü"}`, "f": `{"s":["` + long + `xz"]}`,
	}, "s")
	s.check(t, []filterCase{
		{`{"s":"` + long + `"}`, "a"},
		{`{"s":"` + long + `x"}`, "b"},
		{`{"s":"` + long + `xz"}`, "d f"},
		{`{"s":{"$in":["` + long + `xy","` + long + `ü","q"]}}`, "c e"},
		{`{"s":{"$gt":"` + long + `xy"}}`, "d e f"},
		{`{"s":{"$gt":"` + long + `"}}`, "b c d e f"},
		{`{"s":{"$lt":"` + long + `xz"}}`, "a b c"},
		{`{"s":{"$lte":"` + long + `","$gte":"` + long + `"}}`, "a"},
		{`{"s":{"$startsWith":"` + long + `x"}}`, "b c d f"},
		{`{"s":{"$startsWith":"` + long + `xz"}}`, "d f"},
		{`{"s":{"$startsWith":"` + long + `"}}`, "a b c d e f"},
	})
}
