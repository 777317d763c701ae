package faults_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection/projectiontest"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// rebuildDSN is the environment of a process that follows the projection, this binary once more.
const rebuildDSN = "BANNOU_FAULTS_REBUILD_DSN"

const (
	rebuildWriters = 4
	rebuildLease   = 500 * time.Millisecond
	rebuildBatch   = 50
	perStream      = 250                  // events that are there before
	perBatch       = 5 * time.Millisecond // what a builder pauses for with each batch, so that it has one in work when it is harmed
	// beforeEnd is how far before the end of what is stored a new version is held until it was harmed: too far for it to be made live.
	beforeEnd = 1000
)

// A rebuildFault is a harm that is done to who builds a projection.
type rebuildFault struct {
	name  string
	times int // how often a long run does it, each time further on; a quick one does it once
	harm  func(ctx context.Context, r *rebuildRun) error
}

// What happens in the middle of a rebuild. It compares no rates, and runs beside others, apart from those who count goroutines.
func TestRebuild(t *testing.T) {
	t.Parallel()
	apart(t, 0, func(t *testing.T) {
		server := servers.NewMySQL(t, servers.MySQLOptions{})
		for _, f := range []rebuildFault{
			{"builder killed", 3, func(_ context.Context, r *rebuildRun) error {
				builder, err := r.builder()
				if err != nil {
					return err
				}
				return errors.Join(r.end(builder, (*rebuildProcess).kill), r.start())
			}},
			{"builder stopped (SIGSTOP) for three leases", 2, func(ctx context.Context, r *rebuildRun) error {
				builder, err := r.builder()
				if err != nil {
					return err
				}
				return errors.Join(builder.cmd.Process.Signal(syscall.SIGSTOP), faults.Pause(ctx, 3*rebuildLease), builder.cmd.Process.Signal(syscall.SIGCONT))
			}},
			{"lease taken from a builder that works, so that two build", 3, func(ctx context.Context, r *rebuildRun) error {
				return takeLease(ctx, r.db, r.built.Subscription())
			}},
			{"server killed", 2, func(ctx context.Context, _ *rebuildRun) error { return errors.Join(server.Kill(), server.Restart(ctx)) }},
		} {
			t.Run(f.name, func(t *testing.T) { endureRebuild(t, server, f) })
		}
	})
}

// A rebuildRun is one fault's.
type rebuildRun struct {
	dsn       string
	db        *sql.DB
	log       *eventstore.Store
	commands  *projection.Set // of a process that has no definition
	processes []*rebuildProcess
	built     projection.Version
	furthest  int64 // position at which the new version was seen last
	back      int
}

func endureRebuild(t *testing.T, server *servers.MySQLServer, f rebuildFault) {
	row := faults.RebuildRow{Fault: f.name, Times: 1, Seed: *seed}
	stored := int64(5000)
	if *long {
		row.Times, stored = f.times, 20_000
	}
	r := &rebuildRun{dsn: server.NewDatabase(t).DSN}
	defer func() {
		for _, p := range r.processes {
			_ = p.kill() // those that were not ended
		}
		row.Back, row.Failed = r.back, t.Failed()
		rows.Rebuilds = append(rows.Rebuilds, row)
		t.Logf("seed %d: %+v", *seed, row)
	}()
	model := r.open(t, stored)
	require.NoError(t, errors.Join(r.start(), r.start()))
	live := projection.Version{Projection: model.Definition.Name, Number: 1}
	r.reach(t, live, stored)

	ctx, stop := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	var appended atomic.Int64
	for w := range rebuildWriters {
		writers.Go(func() { r.write(ctx, w, &appended) })
	}
	end := sync.OnceFunc(func() { stop(); writers.Wait() })
	defer end()
	var err error
	r.built, err = r.commands.Rebuild(within(t, patience), live.Projection, false)
	require.NoError(t, err)
	for n := range row.Times {
		at := r.reach(t, r.built, stored*int64(n+1)/int64(row.Times+1))
		require.Equal(t, projection.Building, at.State, "it is harmed before it is done")
		require.NoError(t, f.harm(within(t, patience), r))
	}
	bounded := within(t, 3*patience)
	require.Eventually(t, func() bool {
		_, err := r.db.ExecContext(bounded, "DELETE FROM held")
		return err == nil
	}, patience, pollPeriod, "it goes on to the end")
	require.Eventually(t, func() bool {
		r.look(r.built)
		now, err := r.commands.Live(bounded, live.Projection)
		return err == nil && now == r.built
	}, patience, pollPeriod, "the rebuilt version is live")
	row.Meanwhile = appended.Load()
	end()
	row.Events, err = r.log.Head(within(t, patience))
	require.NoError(t, err)
	r.reach(t, live, row.Events)
	r.reach(t, r.built, row.Events)
	for _, p := range r.processes {
		require.NoError(t, p.end())
	}
	old, rebuilt := strings.Split(model.Read(t, live).String(), "\n"), strings.Split(model.Read(t, r.built).String(), "\n")
	row.Rows, row.Differing = len(rebuilt)-1, differing(old, rebuilt)
	row.Wrong = differing(strings.Split(projectiontest.Expected(t, r.log), "\n"), rebuilt)
	assert.Zero(t, row.Differing, "rows that are not those of the live version")
	assert.Zero(t, row.Wrong, "rows that are not what the events come to")
	assert.Zero(t, r.back, "times that the rebuild was begun anew")
	assert.Greater(t, row.Rows, rebuildWriters)
}

// open makes the log and fills it.
func (r *rebuildRun) open(t *testing.T, stored int64) projectiontest.Model {
	r.log = openEvents(t, r.dsn)
	var err error
	r.db, err = sql.Open("mysql", r.dsn)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, r.db.Close()) })
	_, err = r.log.Head(within(t, patience)) // makes the tables
	require.NoError(t, err)
	for _, statement := range []string{
		"CREATE TABLE builders (version INT PRIMARY KEY, pid INT NOT NULL) ENGINE=InnoDB",
		"CREATE TABLE held (position BIGINT NOT NULL) ENGINE=InnoDB",
		fmt.Sprintf("INSERT INTO held (position) VALUES (%d)", stored-beforeEnd),
	} {
		_, err = r.db.ExecContext(within(t, patience), statement)
		require.NoError(t, err)
	}
	for n := range stored / perStream {
		events := make([]eventstore.Event, perStream)
		for i := range events {
			events[i] = eventstore.Event{Type: "x", Data: jsontext.Value(strconv.Itoa(i))}
		}
		_, err := r.log.Append(within(t, patience), eventstore.StreamID{Category: "stored", ID: fmt.Sprintf("s-%d", n)}, eventstore.NoStream, events...)
		require.NoError(t, err)
	}
	r.commands, err = projection.Open(within(t, patience), r.log, projection.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, r.commands.Close(within(t, patience))) })
	return projectiontest.Tables(t, projectiontest.Place{DB: r.db})
}

// write appends until ctx ends. What cannot be appended now, because the server is away, is not missed.
func (r *rebuildRun) write(ctx context.Context, writer int, appended *atomic.Int64) {
	for ctx.Err() == nil {
		_, err := r.log.Append(ctx, eventstore.StreamID{Category: "live", ID: strconv.Itoa(writer)}, eventstore.Any, eventstore.Event{Type: "x", Data: jsontext.Value("1")})
		if err == nil {
			appended.Add(1)
		}
		_ = faults.Pause(ctx, 10*time.Millisecond) // the builder has to come near the end
	}
}

// look is where a version is, if the server says so. A server that is killed may have shown a batch that was not on its disk yet: its builder had no answer, and
// makes that one again.
func (r *rebuildRun) look(v projection.Version) (status projection.Status, found bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := r.commands.List(ctx, v.Projection)
	for _, s := range all {
		if err != nil || s.Version != v {
			continue
		}
		if v == r.built {
			if s.Position < r.furthest-2*rebuildBatch {
				r.back++
			}
			r.furthest = s.Position
		}
		return s, true
	}
	return status, false
}

// reach waits until a version is at a position.
func (r *rebuildRun) reach(t *testing.T, v projection.Version, position int64) (status projection.Status) {
	t.Helper()
	require.Eventually(t, func() bool {
		var found bool
		status, found = r.look(v)
		return found && status.Position >= position
	}, patience, 5*time.Millisecond, "%s at %d", v, position)
	return status
}

// builder is the process that has built the last batch of the new version.
func (r *rebuildRun) builder() (*rebuildProcess, error) {
	var pid int
	if err := r.db.QueryRow("SELECT pid FROM builders WHERE version = ?", r.built.Number).Scan(&pid); err != nil {
		return nil, err
	}
	for _, p := range r.processes {
		if p.cmd.Process.Pid == pid {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%d, who builds, is none of the processes", pid)
}

// differing counts the lines that only one of them has, in one of the two.
func differing(a, b []string) (n int) {
	has := map[string]bool{}
	for _, line := range a {
		has[line] = true
	}
	for _, line := range b {
		if !has[line] {
			n++
		}
	}
	return max(n, n+len(a)-len(b))
}

// A rebuildProcess follows the projection until its standard input ends, or it is killed.
type rebuildProcess struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

func (r *rebuildRun) start() error {
	p := &rebuildProcess{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), rebuildDSN+"="+r.dsn)
	p.cmd.Stderr = os.Stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	r.processes = append(r.processes, p)
	return p.cmd.Start()
}

// end ends a process that is replaced.
func (r *rebuildRun) end(p *rebuildProcess, how func(*rebuildProcess) error) error {
	for i := range r.processes {
		if r.processes[i] == p {
			r.processes = append(r.processes[:i], r.processes[i+1:]...)
			break
		}
	}
	return how(p)
}

// kill ends it with SIGKILL. Ending twice does no harm.
func (p *rebuildProcess) kill() error {
	if p.cmd.Process == nil || p.cmd.ProcessState != nil {
		return nil
	}
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it says that it was killed
	return err
}

// end has it stop by itself.
func (p *rebuildProcess) end() error { return errors.Join(p.stdin.Close(), p.cmd.Wait()) }

// rebuildChains is the process.
func rebuildChains(dsn string) int {
	ctx, stop := context.WithCancel(context.Background())
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); stop() }()
	err := func() error {
		driver, err := mysqlstate.New(mysqlstate.Config{DSN: dsn})
		if err != nil {
			return err
		}
		log, err := mysqlevents.Open(driver, eventstore.Config{})
		if err != nil {
			return err
		}
		definition := projectiontest.InTables()
		apply := definition.Apply
		definition.Batch, definition.Apply = rebuildBatch, func(ctx context.Context, b projection.Batch) error {
			if err := holdBack(ctx, b); err != nil {
				return err
			}
			_, noted := b.Tx.ExecContext(ctx, "REPLACE INTO builders (version, pid) VALUES (?, ?)", b.Version.Number, os.Getpid())
			return errors.Join(noted, faults.Pause(ctx, perBatch), apply(ctx, b))
		}
		set, err := projection.Open(ctx, log, projection.Config{Definitions: []projection.Definition{definition}, Poll: 20 * time.Millisecond, Lease: rebuildLease})
		if err != nil {
			return err
		}
		<-ctx.Done()
		return errors.Join(set.Close(context.WithoutCancel(ctx)), driver.Close())
	}()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "rebuild:", err)
		return 1
	}
	return 0
}

// holdBack refuses a new version what is behind the position at which it is held, if it is.
func holdBack(ctx context.Context, b projection.Batch) error {
	if b.Version.Number == 1 {
		return nil
	}
	var held int
	err := b.Tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM held WHERE position < ?", b.Events[len(b.Events)-1].Position).Scan(&held)
	if err == nil && held > 0 {
		err = fmt.Errorf("%w: it was not harmed yet", state.ErrUnavailable)
	}
	return err
}
