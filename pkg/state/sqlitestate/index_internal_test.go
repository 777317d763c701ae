package sqlitestate

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
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
		query, err := e.selection(c.q)
		require.NoError(t, err)
		readable := strings.ReplaceAll(explain(t, d, query), "COVERING INDEX", "INDEX")
		require.Contains(t, readable, c.plan, query.Text)
		require.NotContains(t, readable, c.none, query.Text)
		if c.q.Filter.Root() != nil {
			require.Contains(t, readable, "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)", query.Text)
		}
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
