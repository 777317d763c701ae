package faults_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

// The environment of a writer that runs as a process of its own, this binary once more.
const (
	writerPath = "BANNOU_FAULTS_SQLITE"
	writerRun  = "BANNOU_FAULTS_RUN"
)

// A process that writes to a SQLite file is killed in the middle of its work, and another goes on with the file. What the first said it
// was told is there.
func TestStateSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	ledger := faults.NewStateLedger()
	row := faults.StateRow{Fault: "process killed", Engine: "sqlite"}
	defer func() { enterState(t, row) }()
	writer, err := startWriter(path, "0", ledger)
	require.NoError(t, err)
	defer func() { require.NoError(t, writer.kill()) }()
	runs := 0
	harmState(t, ledger, stateFault{row.Fault, 4, func(context.Context) error {
		if err := writer.kill(); err != nil {
			return err
		}
		runs++
		next, err := startWriter(path, fmt.Sprint(runs), ledger)
		if err == nil {
			writer = next
		}
		return err
	}}, &row)
	require.NoError(t, writer.kill())

	d, err := sqlitestate.New(sqlitestate.Config{Path: path})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	store, err := openState(t.Context(), d)
	require.NoError(t, err)
	settleState(t, ledger, store, &row)
}

// A writer is another process under the load, and what it said has been entered when said is closed.
type writer struct {
	cmd  *exec.Cmd
	said chan error
}

func startWriter(path, run string, ledger *faults.StateLedger) (*writer, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	w := &writer{cmd: exec.Command(os.Args[0], fmt.Sprintf("-seed=%d", *seed)), said: make(chan error, 1)}
	w.cmd.Env = append(os.Environ(), writerPath+"="+path, writerRun+"="+run)
	w.cmd.Stdout, w.cmd.Stderr = write, os.Stderr
	err = w.cmd.Start()
	_ = write.Close() // the child has its own
	if err != nil {
		_ = read.Close()
		return nil, err
	}
	go func() {
		defer func() { _ = read.Close() }()
		w.said <- enter(bufio.NewReader(read), ledger)
	}()
	return w, nil
}

// kill ends the process with SIGKILL, and returns when all that it said has been entered. Killing twice does no harm.
func (w *writer) kill() error {
	if w.cmd.ProcessState != nil {
		return nil
	}
	err := w.cmd.Process.Kill()
	_ = w.cmd.Wait() // it says that it was killed
	return errors.Join(err, <-w.said)
}

// enter enters the lines of a writer until its pipe is closed. A line is written at once or not at all.
func enter(said *bufio.Reader, ledger *faults.StateLedger) error {
	for {
		line, err := said.ReadString('\n')
		if err != nil {
			return nil //nolint:nilerr // the process has ended
		}
		var w faults.Write
		var v string
		var overdue time.Duration
		if _, err := fmt.Sscan(line, &w.Run, &w.Kind, &w.Writer, &w.Number, &v, &overdue); err != nil {
			return fmt.Errorf("the writer said %q: %w", line, err)
		}
		if v == "begun" {
			ledger.Begun(w)
		} else {
			ledger.Ended(w, faults.Verdict(v), overdue)
		}
	}
}

// write is the writer's process. It writes until it is killed.
func write(path, run string) int {
	say := func(w faults.Write, v faults.Verdict, overdue time.Duration) {
		_, _ = fmt.Fprintf(os.Stdout, "%s %s %d %d %s %d\n", w.Run, w.Kind, w.Writer, w.Number, v, overdue)
	}
	err := func() error {
		d, err := sqlitestate.New(sqlitestate.Config{Path: path})
		if err != nil {
			return err
		}
		store, err := openState(context.Background(), d)
		if err != nil {
			return err
		}
		load := &faults.StateLoad{Store: store, Run: run, Seed: *seed, Ended: say,
			Begun: func(w faults.Write) { say(w, "begun", 0) },
			Fail:  func(err error) { _, _ = fmt.Fprintln(os.Stderr, "writer:", err) }}
		load.Write(context.Background())
		return nil
	}()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "writer:", err)
		return 1
	}
	return 0
}
