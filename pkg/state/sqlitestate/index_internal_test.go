package sqlitestate

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// The statements that queries become are served by the declared indexes, as SQLite explains them, and do not sort where the
// index has the order.
func TestIndexesAreUsed(t *testing.T) {
	d, err := New(Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	opened, err := d.Open(t.Context(), state.StoreConfig{Name: "s", TableName: "state_entries", Indexes: []string{"level", "a.b"}})
	require.NoError(t, err)
	e := opened.(*engine)
	require.Eventually(t, func() bool { return len(e.Indexed()) == 2 }, 10*time.Second, time.Millisecond)
	level, nested := e.indexName(e.indexed()[0]), e.indexName(e.indexed()[1])
	require.NotEqual(t, level, nested)

	after := &state.Position{Key: "k", Places: []state.Place{{Rank: state.RankNumber, Text: "7"}}}
	byLevel := []state.Sort{{Field: "level"}}
	for _, c := range []struct {
		q          state.Query
		plan, none string
	}{
		{state.Query{Filter: state.Where("level").Eq(7), Limit: 1}, "(<expr>=? AND <expr>=?)", "(store=?)"},
		{state.Query{Filter: state.Where("level").Eq(7)}, "USING INDEX " + level + " (<expr>=? AND <expr>=?)", "SCAN e"},
		{state.Query{Filter: state.Where("level").Eq("x").And(state.Where("c").Gt(1))}, "USING INDEX " + level + " (<expr>=? AND <expr>=?)", "SCAN e"},
		{state.Query{Filter: state.Where("level").Gte(7).And(state.Where("level").Lt(9))}, "USING INDEX " + level + " (<expr>=? AND <expr>>? AND <expr><?)", "SCAN e"},
		{state.Query{Filter: state.Where("level").StartsWith("x")}, "USING INDEX " + level + " (<expr>=? AND <expr>>? AND <expr><?)", "SCAN e"},
		{state.Query{Filter: state.Where("level").In(1, "x", nil)}, "USING INDEX " + level + " (<expr>=? AND <expr>=?)", "SCAN e"},
		{state.Query{Filter: state.Where("a.b").Eq(7).And(state.Where("level").Gt(1))}, "USING INDEX " + nested + " (<expr>=? AND <expr>=?)", level},
		{state.Query{Sort: byLevel, Limit: 10}, "SCAN e USING INDEX " + level, "TEMP B-TREE"},
		{state.Query{Sort: byLevel, Limit: 10, After: after}, "SEARCH e USING INDEX " + level, "TEMP B-TREE"},
		{state.Query{Limit: 10, After: &state.Position{Key: "k"}}, "(store=? AND key>?)", "TEMP B-TREE"},
	} {
		p, _ := sqlstate.Choose(dialect{}, e.indexed(), c.q.Filter)
		query, err := e.selection(p, c.q)
		require.NoError(t, err)
		readable := strings.ReplaceAll(explain(t, d, query), "COVERING INDEX", "INDEX")
		require.Contains(t, readable, c.plan, query.Text)
		require.NotContains(t, readable, c.none, query.Text)
		if c.q.Filter.Root() != nil {
			require.Contains(t, readable, "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)", query.Text)
		}
	}
}

// What is asked of scalars alone is read from one range of the index, and an equality without a sort finds the keys in order there.
func TestQuickQueriesAreServedByIndexes(t *testing.T) {
	d, err := New(Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	opened, err := d.Open(t.Context(), state.StoreConfig{Name: "s", TableName: "state_entries", Indexes: []string{"level", "a.b"}})
	require.NoError(t, err)
	e := opened.(*engine)
	require.Eventually(t, func() bool { return len(e.Indexed()) == 2 }, 10*time.Second, time.Millisecond)
	level, nested := e.indexName(e.indexed()[0]), e.indexName(e.indexed()[1])
	for _, c := range []struct {
		q     state.Query
		plan  string
		sorts bool
	}{
		{state.Query{Filter: state.Where("level").Eq(7), Limit: 1}, level + " (<expr>=? AND <expr>=?)", false},
		{state.Query{Filter: state.Where("level").Eq("x").And(state.Where("c").Gt(1))}, level + " (<expr>=? AND <expr>=?)", false},
		{state.Query{Filter: state.Where("a.b").Eq(true)}, nested + " (<expr>=? AND <expr>=?)", false},
		{state.Query{Filter: state.Where("level").Gte(7).And(state.Where("level").Lt(9))}, level + " (<expr>=? AND <expr>>? AND <expr><?)", true},
		{state.Query{Filter: state.Where("level").Eq(7), Sort: []state.Sort{{Field: "c"}}}, level + " (<expr>=? AND <expr>=?)", true},
	} {
		p, planned := sqlstate.Choose(dialect{}, e.indexed(), c.q.Filter)
		require.True(t, planned)
		query, err := e.quickly(p, c.q)
		require.NoError(t, err)
		readable := explain(t, d, query)
		require.Contains(t, readable, "SEARCH e USING INDEX "+c.plan, query.Text)
		require.Equal(t, 2, strings.Count(readable, "SEARCH e USING INDEX "+e.indexName(p.Index)), readable)
		require.NotContains(t, readable, "SCAN e", query.Text)
		require.Equal(t, c.sorts, strings.Contains(readable, "TEMP B-TREE"), readable)
	}
}

func explain(t *testing.T, d *Driver, query expr) string {
	t.Helper()
	rows, err := d.reader.Query("EXPLAIN QUERY PLAN "+query.Text, query.Args...)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	var plan strings.Builder
	for rows.Next() {
		var id, parent, unused int
		var detail string
		require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
		fmt.Fprintln(&plan, detail)
	}
	require.NoError(t, rows.Err())
	return plan.String()
}
