package projectiontest

import (
	"context"
	"crypto/md5" //nolint:gosec // no secret
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
)

// A Chain is what the events of one stream come to: it is another one when an event is left out, comes twice, or in another order.
type Chain struct {
	Count  int64  `json:"count"`
	Digest string `json:"digest"`
}

// Add is the chain after another event.
func (c *Chain) Add(e eventstore.Recorded) {
	c.Count++
	sum := md5.Sum(fmt.Appendf([]byte(c.Digest), "%d %s %s", e.Position, e.Data, e.RecordedAt)) //nolint:gosec // no secret
	c.Digest = hex.EncodeToString(sum[:])
}

// chains are those of all streams, by id.
type chains map[string]Chain

func (c chains) add(e eventstore.Recorded) {
	chain := c[e.Stream.ID]
	chain.Add(e)
	c[e.Stream.ID] = chain
}

func (c chains) total() (n int64) {
	for _, chain := range c {
		n += chain.Count
	}
	return n
}

// String has the same bytes for the same chains.
func (c chains) String() string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "%s %d %s\n", id, c[id].Count, c[id].Digest)
	}
	return b.String()
}

// A Model is a projection of chains.
type Model struct {
	Definition projection.Definition
	Read       func(t require.TestingT, v projection.Version) chains
	gate       *gate
}

// RequireRight requires that a version has what all events come to, in their order, each once.
func (m *Model) RequireRight(t testing.TB, log *eventstore.Store, v projection.Version) {
	t.Helper()
	require.Equal(t, Expected(t, log), m.Read(t, v).String(), "%s is not what the events come to", v)
}

// Expected is what the events of a log come to, as Read and String tell it of a version that is right: a line for each stream.
func Expected(t testing.TB, log *eventstore.Store) string {
	t.Helper()
	expected := chains{}
	for e, err := range log.ReadAll(context.WithoutCancel(t.Context()), eventstore.ReadOptions{}) {
		require.NoError(t, err)
		expected.add(e)
	}
	return expected.String()
}

// A gate stands before each batch.
type gate struct {
	mu   sync.Mutex
	look func(b projection.Batch) error
}

func (g *gate) set(look func(b projection.Batch) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.look = look
}

func (g *gate) pass(b projection.Batch) error {
	g.mu.Lock()
	look := g.look
	g.mu.Unlock()
	if look == nil {
		return nil
	}
	return look(b)
}

// InTables is a projection of chains in a table of the log's database.
func InTables() projection.Definition {
	return projection.Definition{Name: "chains", Batch: 40, Apply: applyToTable,
		Tables: []projection.Table{{Name: "chains", Columns: "(id VARCHAR(64) NOT NULL PRIMARY KEY, n BIGINT NOT NULL, digest VARCHAR(64) NOT NULL)"}}}
}

// Tables is the model of that.
func Tables(t *testing.T, p Place) Model {
	t.Helper()
	m := Model{gate: &gate{}, Definition: InTables()}
	m.Definition.Apply = func(ctx context.Context, b projection.Batch) error {
		if err := m.gate.pass(b); err != nil {
			return err
		}
		return applyToTable(ctx, b)
	}
	m.Read = func(t require.TestingT, v projection.Version) chains {
		all := chains{}
		rows, err := p.DB.QueryContext(context.Background(), in(v, "SELECT id, n, digest FROM {t}"))
		require.NoError(t, err)
		defer func() { require.NoError(t, rows.Close()) }()
		for rows.Next() {
			var id string
			var c Chain
			require.NoError(t, rows.Scan(&id, &c.Count, &c.Digest))
			all[id] = c
		}
		require.NoError(t, rows.Err())
		return all
	}
	return m
}

func applyToTable(ctx context.Context, b projection.Batch) error {
	changed := chains{}
	for _, e := range b.Events {
		if _, known := changed[e.Stream.ID]; !known {
			var c Chain
			err := b.Tx.QueryRowContext(ctx, in(b.Version, "SELECT n, digest FROM {t} WHERE id = ?"), e.Stream.ID).Scan(&c.Count, &c.Digest)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			changed[e.Stream.ID] = c
		}
		changed.add(e)
	}
	for _, id := range slices.Sorted(maps.Keys(changed)) {
		c := changed[id]
		if _, err := b.Tx.ExecContext(ctx, in(b.Version, "REPLACE INTO {t} (id, n, digest) VALUES (?, ?, ?)"), id, c.Count, c.Digest); err != nil {
			return err
		}
	}
	return nil
}

// in puts the name of a version's table into a statement.
func in(v projection.Version, statement string) string {
	return strings.ReplaceAll(statement, "{t}", v.Table("chains"))
}

// keys keeps chains in a state store.
func keys(t *testing.T, _ Place) Model {
	t.Helper()
	m := Model{gate: &gate{}}
	rows := memoryRows(t)
	m.Definition = projection.Definition{Name: "chains", Batch: 40, Into: projection.Into(projection.Keyed[Chain]{Store: rows,
		Keys: func(e eventstore.Recorded) []string { return []string{e.Stream.ID} },
		Apply: func(current *Chain, _ string, e eventstore.Recorded) error {
			if err := m.gate.pass(projection.Batch{Events: []eventstore.Recorded{e}}); err != nil {
				return err
			}
			current.Add(e)
			return nil
		}})}
	m.Read = func(t require.TestingT, v projection.Version) chains {
		all := chains{}
		for i := range 10 {
			id := string(rune('0' + i))
			row, err := rows.Get(context.Background(), v.Key(id))
			if errors.Is(err, state.ErrNotFound) {
				continue
			}
			require.NoError(t, err)
			require.Equal(t, v.String(), row.Of)
			all[id] = row.Value
		}
		return all
	}
	return m
}

// mapped keeps chains in memory, without anything that tells what was applied already.
func mapped(t *testing.T, _ Place) Model {
	t.Helper()
	m := Model{gate: &gate{}}
	var mu sync.Mutex
	all := map[projection.Version]chains{}
	m.Definition = projection.Definition{Name: "chains", Batch: 40, Apply: func(_ context.Context, b projection.Batch) error {
		if err := m.gate.pass(b); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if all[b.Version] == nil {
			all[b.Version] = chains{}
		}
		for _, e := range b.Events {
			all[b.Version].add(e)
		}
		return nil
	}}
	m.Read = func(_ require.TestingT, v projection.Version) chains {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(all[v])
	}
	return m
}
