package faults_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
)

// A run of some faults leaves the rows of the others on the page.
func TestPageKeepsOtherRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "faults.md")
	page := func() string {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(text)
	}
	write := func(r faults.Rows) { require.NoError(t, faults.WritePage(path, &r)) }
	write(faults.Rows{Relays: []faults.RelayRow{{Fault: "leader killed"}}})
	for _, events := range [][]faults.EventRow{{{Fault: "server killed"}}, nil, {{Fault: "server killed"}}} {
		write(faults.Rows{Events: events})
		require.Equal(t, 1, strings.Count(page(), "| leader killed |"))
		require.Equal(t, 1, strings.Count(page(), "| server killed |"))
	}
	require.NoError(t, os.WriteFile(path, []byte(page()+"\n## Others\n\nwords\n"), 0o600))
	write(faults.Rows{Relays: []faults.RelayRow{{Fault: "leader stopped"}}, Mesh: []faults.MeshRow{{}}})
	write(faults.Rows{Outages: []faults.RelayRow{{Fault: "broker away"}}})
	write(faults.Rows{Relays: []faults.RelayRow{{Fault: "leader stopped"}}}) // the outage is of another run
	write(faults.Rows{Bus: []faults.Row{{Fault: "broker killed"}}, Rebuilds: []faults.RebuildRow{{Fault: "builder killed"}}})
	require.NotContains(t, page(), "| leader killed |")
	for _, once := range []string{"| leader stopped |", "| broker away |", "| server killed |", "| broker killed |", "| builder killed |", "\n## Mesh\n"} {
		require.Equal(t, 1, strings.Count(page(), once), once)
	}
	require.Less(t, strings.Index(page(), "## Mesh"), strings.Index(page(), "words"))
	require.Less(t, strings.Index(page(), "## Rebuilding"), strings.Index(page(), "## Outbox and inbox"))
	require.Less(t, strings.Index(page(), "## Events"), strings.Index(page(), "## Outbox and inbox"))
	require.Less(t, strings.Index(page(), "| leader stopped |"), strings.Index(page(), "| broker away |"))

	var all faults.Rows
	all.Add(faults.Rows{Outages: []faults.RelayRow{{Fault: "broker away"}}})
	require.Contains(t, all.String(), "| broker away |")
}

// Runs of other faults that end at the same time lose nothing of each other.
func TestPageIsRewrittenByOneAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	var writing sync.WaitGroup
	for range 50 {
		writing.Go(func() { assert.NoError(t, faults.Rewrite(path, func(old string) string { return old + "x" })) })
	}
	writing.Wait()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("x", 50), string(text))
}
