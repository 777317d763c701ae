package migration_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const heading = `Written by ` + "`make story`" + ` on %s, with daprd 1.14.0, RabbitMQ and Redis; %d callers place orders all the time.

| step | calls | failed, under way to a killed process | failed otherwise | events sent | handled | handled again | lost | state lost or stale | took |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`

// write puts a table between its marks in the page.
func write(t *testing.T, page, name string, rows []row) {
	t.Helper()
	begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->"
	content, err := os.ReadFile(page)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(content), begin)
	_, after, ended := strings.Cut(rest, end)
	require.True(t, found && ended, "%s has no place for the table", page)
	var table strings.Builder
	fmt.Fprintf(&table, heading, time.Now().UTC().Format(time.DateOnly), callers)
	for _, r := range rows {
		fmt.Fprintln(&table, r)
	}
	require.NoError(t, os.WriteFile(page, []byte(before+begin+table.String()+end+after), 0o644))
}
