package state_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

// Variables that make of the test binary one of the processes that start at once.
const (
	processDSN  = "BANNOU_TEST_PROCESS_DSN"
	processPath = "BANNOU_TEST_PROCESS_PATH"
	processName = "BANNOU_TEST_PROCESS_NAME"
)

// processes start at once, on a database that has nothing.
const processes = 6

// Processes that start at once on an empty database bring its tables to their newest form once, those of stores and of
// outboxes, and all of them work.
func TestProcessesStartTogether(t *testing.T) {
	t.Run("mysql", func(t *testing.T) {
		dsn := servers.MySQL(t).DSN
		startTogether(t, processDSN+"="+dsn)
		require.Equal(t, processes, countRows(t, dsn))
	})
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "state.db")
		startTogether(t, processPath+"="+path)
		d, err := sqlitestate.New(sqlitestate.Config{Path: path})
		require.NoError(t, err)
		n, err := openStore(t, d).Len(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, processes, n)
		require.NoError(t, d.Close())
	})
}

func startTogether(t *testing.T, place string) {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	var wait sync.WaitGroup
	said := make([]bytes.Buffer, processes)
	errs := make([]error, processes)
	for i := range processes {
		cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestOneOfTheProcesses$", "-test.count=1")
		cmd.Env = append(os.Environ(), place, processName+"="+string(rune('a'+i)))
		cmd.Stdout, cmd.Stderr = &said[i], &said[i]
		wait.Go(func() { errs[i] = cmd.Run() })
	}
	wait.Wait()
	for i, err := range errs {
		require.NoError(t, err, said[i].String())
	}
}

// TestOneOfTheProcesses is what each of them does.
func TestOneOfTheProcesses(t *testing.T) {
	name := os.Getenv(processName)
	if name == "" {
		t.Skip("it is run by TestProcessesStartTogether")
	}
	var d state.OutboxDriver
	if dsn := os.Getenv(processDSN); dsn != "" {
		d = newMySQL(t, mysqlstate.Config{DSN: dsn, MaxConns: 2})
	} else {
		file, err := sqlitestate.New(sqlitestate.Config{Path: os.Getenv(processPath)})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, file.Close()) })
		d = file
	}
	var wait sync.WaitGroup
	errs := make([]error, 4)
	for i, table := range []string{"state_entries", "table_b", "table_c"} { // tables of one driver, too, at once
		e, err := d.Open(t.Context(), state.StoreConfig{Name: "s", Backend: d.Backend(), TableName: table})
		require.NoError(t, err)
		wait.Go(func() { errs[i] = saveOne(t.Context(), e, name) })
	}
	wait.Go(func() {
		box, err := d.OpenOutbox(t.Context(), state.OutboxConfig{Name: "box", MaxEntries: 100, MaxBytes: 1 << 20})
		if err == nil {
			err = box.Enqueue(t.Context(), state.OutboxEntry{Topic: "t", Properties: []byte("{}"), Body: []byte(name)})
		}
		errs[3] = err
	})
	wait.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
}
