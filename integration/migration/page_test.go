package migration_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
)

const heading = `Written by ` + "`make story`" + ` on %s, with daprd 1.14.0, RabbitMQ, Redis and MariaDB or MySQL; %d callers place orders all the time. Of the
store that ` + "`bannou migrate`" + ` moved, it was told %d times that it started, %d times that it goes on, %d times that it was completed, and %d times that it failed.

| step | calls | failed, under way to a killed process | failed otherwise | events sent | handled | handled again | lost | state lost or stale | took |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`

// write puts a table between its marks in the page.
func write(t *testing.T, page, name string, s *story) {
	t.Helper()
	begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->"
	content, err := os.ReadFile(page)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(content), begin)
	_, after, ended := strings.Cut(rest, end)
	require.True(t, found && ended, "%s has no place for the table", page)
	var table strings.Builder
	fmt.Fprintf(&table, heading, time.Now().UTC().Format(time.DateOnly), callers, s.told.of(events.StoreMigrationStatusStarted),
		s.told.of(events.StoreMigrationStatusProgress), s.told.of(events.StoreMigrationStatusCompleted), s.told.of(events.StoreMigrationStatusFailed))
	for _, r := range s.rows {
		fmt.Fprintln(&table, r)
	}
	require.NoError(t, os.WriteFile(page, []byte(before+begin+table.String()+end+after), 0o644))
}
