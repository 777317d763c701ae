package state_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/migrate"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

// The environment of a writer that runs as a process of its own, this binary once more: its name, and the two places.
const (
	writerName = "BANNOU_STATE_WRITER"
	writerFrom = "BANNOU_STATE_WRITER_FROM"
	writerTo   = "BANNOU_STATE_WRITER_TO"
)

const (
	writerWorkers  = 4
	writerCounters = 6
	writerOwn      = 25
)

// openMoved opens a store as nodes keep it while it is migrated, in a process of the test's own.
func openMoved(ctx context.Context, from, to string) (*state.Store[int], func() error, error) {
	d, err := driverAt(from)
	if err != nil {
		return nil, nil, err
	}
	there, err := driverAt(to)
	if err != nil {
		return nil, nil, err
	}
	w, err := migrate.Wrap(d, migrate.Config{To: func(cfg state.StoreConfig) (migrate.Place, bool) {
		return migrate.Place{Driver: there, Store: state.StoreConfig{Name: cfg.Name}}, true
	}})
	if err != nil {
		return nil, nil, err
	}
	f, err := state.NewFactory([]state.StoreConfig{{Name: "auth", Backend: w.Backend()}}, []state.Driver{w}, state.Options{})
	if err != nil {
		return nil, nil, err
	}
	store, err := state.Open[int](ctx, f, "auth")
	return store, func() error { return errors.Join(f.Close(), there.Close()) }, err
}

// driverAt opens an engine by "redis URL", "mysql DSN" or "sqlite PATH".
func driverAt(address string) (state.Driver, error) {
	engine, at, _ := strings.Cut(address, " ")
	switch engine {
	case "redis":
		return redisstate.New(redisstate.Config{URLs: []string{at}})
	case "mysql":
		return mysqlstate.New(mysqlstate.Config{DSN: at})
	default:
		return sqlitestate.New(sqlitestate.Config{Path: at})
	}
}

// writeMoved is the writer's process. Its workers count shared keys up, by compare-and-set, and write and delete keys of their own. Each
// says on standard output what it is about to do and what came of it: "key try value", then "key ok value", "key no value" (it was not
// made) or "key unknown value"; a delete has the value 0. Before each write of an own key it reads it: "key bad ..." if that is not what
// it knows. It ends when its standard input does.
func writeMoved(name, from, to string) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	store, closing, err := openMoved(ctx, from, to)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "writer:", err)
		return 1
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var mu sync.Mutex
	say := func(key, verb string, value int) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprintf(os.Stdout, "%s %s %d\n", key, verb, value)
	}
	var workers sync.WaitGroup
	for w := range writerWorkers {
		workers.Go(func() {
			owned := map[string]int{}
			for i := 1; ctx.Err() == nil; i++ {
				call, end := context.WithTimeout(context.Background(), 6*time.Second)
				countUp(call, store, fmt.Sprintf("counter-%d", (i+w)%writerCounters), say)
				writeOwn(call, store, fmt.Sprintf("own-%s-%d-%d", name, w, i%writerOwn), i, owned, say)
				end()
			}
		})
	}
	workers.Wait()
	if err := closing(); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "writer:", err)
		return 1
	}
	return 0
}

func countUp(ctx context.Context, store *state.Store[int], key string, say func(key, verb string, value int)) {
	entry, err := store.GetWithETag(ctx, key)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return
	}
	next := entry.Value + 1
	say(key, "try", next)
	_, err = store.TrySave(ctx, key, next, entry.ETag)
	say(key, outcomeOf(err), next)
}

func writeOwn(ctx context.Context, store *state.Store[int], key string, value int, owned map[string]int, say func(key, verb string, value int)) {
	was, known := owned[key]
	is, err := store.Get(ctx, key)
	switch {
	case err != nil && !errors.Is(err, state.ErrNotFound):
	case known && was != is: // an absent key reads as 0
		say(key, fmt.Sprintf("bad it-is-%d-and-was-written-as", is), was)
	}
	deletes := value%3 == 0
	said := value
	if deletes {
		said = 0
	}
	say(key, "try", said)
	if deletes {
		_, err = store.Delete(ctx, key)
	} else {
		_, err = store.SaveWith(ctx, key, value, state.SaveOptions{Expiry: state.After(time.Hour)})
	}
	say(key, outcomeOf(err), said)
	switch outcomeOf(err) {
	case "ok":
		owned[key] = said
	case "unknown":
		delete(owned, key)
	}
}

func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, state.ErrOutcomeUnknown):
		return "unknown"
	default:
		return "no"
	}
}

// A movedWriter is a process that writes, and what it has said.
type movedWriter struct {
	cmd  *exec.Cmd
	in   io.Closer
	read chan struct{} // closed when all was read

	mu    sync.Mutex
	lines []string
	acked int
}

func startWriter(t *testing.T, name, from, to string) *movedWriter {
	t.Helper()
	w := &movedWriter{cmd: exec.CommandContext(t.Context(), os.Args[0]), read: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), writerName+"="+name, writerFrom+"="+from, writerTo+"="+to)
	w.cmd.Stderr = os.Stderr
	var err error
	w.in, err = w.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := w.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, w.cmd.Start())
	go func() {
		defer close(w.read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			w.mu.Lock()
			w.lines = append(w.lines, lines.Text())
			if strings.Contains(lines.Text(), " ok ") {
				w.acked++
			}
			w.mu.Unlock()
		}
	}()
	return w
}

func (w *movedWriter) acknowledged() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acked
}

// await waits until so many more writes were acknowledged.
func (w *movedWriter) await(t *testing.T, more int) {
	t.Helper()
	want := w.acknowledged() + more
	require.Eventually(t, func() bool { return w.acknowledged() >= want }, patience, 5*time.Millisecond, "no more writes are acknowledged")
}

func (w *movedWriter) end(t *testing.T) {
	t.Helper()
	require.NoError(t, w.in.Close())
	<-w.read
	require.NoError(t, w.cmd.Wait())
}

func (w *movedWriter) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, w.cmd.Process.Kill())
	<-w.read
	_ = w.cmd.Wait()
}

// A told is what writers were told of one key.
type told struct {
	acked map[int]int  // values, and how often each was acknowledged
	last  int          // the greatest acknowledged
	may   map[int]bool // what an own key may be
	had   bool         // the value that is tried was possible before
	open  int          // tries of which nobody was told what came of them: the outcome is unknown, or the process was killed
}

// settle reads what a writer said. An own key may be what was acknowledged last, or any try after it whose outcome is unknown.
func settle(all map[string]*told, lines []string) (acked, unknown int, bad []string) {
	for _, line := range lines {
		parts := strings.Fields(line)
		if len(parts) < 3 {
			continue // a killed process' last words
		}
		key, verb := parts[0], parts[1]
		value, err := strconv.Atoi(parts[len(parts)-1])
		if err != nil {
			continue
		}
		k := all[key]
		if k == nil {
			k = &told{acked: map[int]int{}, may: map[int]bool{0: true}}
			all[key] = k
		}
		switch verb {
		case "try":
			k.open++
			k.had = k.may[value]
			k.may[value] = true
		case "ok":
			acked++
			k.open--
			k.acked[value]++
			k.last = max(k.last, value)
			k.may = map[int]bool{value: true}
		case "no":
			k.open--
			if !k.had {
				delete(k.may, value)
			}
		case "unknown":
			unknown++
		default:
			bad = append(bad, line)
		}
	}
	return acked, unknown, bad
}

// Three processes write to a store that moves from one engine to another and back, and there again for good. One is killed while changes
// are carried, and in each move of the decision one is stopped (SIGSTOP) before it and goes on after it. What was acknowledged is there in
// the end, and no count was made twice.
func TestMigrationUnderWriters(t *testing.T) {
	t.Parallel()
	t.Run("redis to mysql", func(t *testing.T) {
		t.Parallel()
		live(t, "redis "+servers.Redis(t).URL, "mysql "+servers.MySQL(t).DSN)
	})
	t.Run("mysql to redis", func(t *testing.T) {
		t.Parallel()
		live(t, "mysql "+servers.MySQL(t).DSN, "redis "+servers.Redis(t).URL)
	})
}

func live(t *testing.T, from, to string) {
	ctx := t.Context()
	places := [2]migrate.Place{}
	for i, at := range []string{from, to} {
		d, err := driverAt(at)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, d.Close()) })
		places[i] = migrate.Place{Driver: d, Store: state.StoreConfig{Name: "auth"}}
	}
	m, err := migrate.Open(ctx, migrate.Options{From: places[0], To: places[1], MaxPause: 3 * time.Second, Report: func(p migrate.Progress) {
		if p.Note != "" {
			t.Log(p.Note)
		}
	}})
	require.NoError(t, err)

	writers := map[string]*movedWriter{}
	for _, name := range []string{"a", "b", "c"} {
		writers[name] = startWriter(t, name, from, to)
	}
	each := func(more int) {
		for _, w := range writers {
			if w.cmd.ProcessState == nil {
				w.await(t, more)
			}
		}
	}
	each(50)

	found, err := m.Copy(ctx)
	require.NoError(t, err)
	require.Zero(t, found.Different, "%+v", found)
	t.Logf("copied and compared under load: %d keys, %d busy", found.ToKeys, found.Busy)
	writers["b"].kill(t) // with changes made and not carried
	writers["d"] = startWriter(t, "d", from, to)
	each(50)

	across := func(name string, move func() error) {
		t.Helper()
		w := writers[name]
		var err error
		var begun time.Time
		for try := range 4 {
			if try < 3 {
				require.NoError(t, w.cmd.Process.Signal(syscall.SIGSTOP))
			}
			begun = time.Now()
			err = move()
			require.NoError(t, w.cmd.Process.Signal(syscall.SIGCONT))
			if !errors.Is(err, migrate.ErrPause) {
				break
			}
			t.Logf("not moved: the process was stopped in the midst of a transaction: %v", err)
			each(50)
		}
		require.NoError(t, err)
		t.Logf("moved in %s", time.Since(begun).Round(10*time.Millisecond))
		each(50)
	}
	phase := func(want migrate.Phase) {
		t.Helper()
		st, err := m.Status(ctx)
		require.NoError(t, err)
		require.Equal(t, want, st.Phase)
		require.False(t, st.Closing)
	}
	back := func() error { _, err := m.Back(ctx); return err }
	across("a", func() error { return m.CutOver(ctx) })
	phase(migrate.Target)
	found, err = m.Compare(ctx)
	require.NoError(t, err)
	require.Zero(t, found.Different, "what is written to the new place is carried to the old one: %+v", found)
	across("c", back)
	phase(migrate.Mirror)
	across("d", func() error { return m.CutOver(ctx) })
	require.NoError(t, m.Finish(ctx))
	phase(migrate.Done)
	each(50)

	all := map[string]*told{}
	var acked, unknown int
	for name, w := range writers {
		if name != "b" {
			w.end(t)
		}
		a, u, bad := settle(all, w.lines)
		require.Empty(t, bad, "a writer read what it had not written")
		acked, unknown = acked+a, unknown+u
	}
	check(t, openInts(t, places[1]), all)
	t.Logf("acknowledged %d, unknown %d, lost 0", acked, unknown)
}

func openInts(t *testing.T, p migrate.Place) *state.Store[int] {
	t.Helper()
	cfg := p.Store
	cfg.Backend = p.Driver.Backend()
	f, err := state.NewFactory([]state.StoreConfig{cfg}, []state.Driver{p.Driver}, state.Options{})
	require.NoError(t, err)
	store, err := state.Open[int](t.Context(), f, cfg.Name)
	require.NoError(t, err)
	return store
}

// check holds what is in the store against what writers were told.
func check(t *testing.T, store *state.Store[int], all map[string]*told) {
	t.Helper()
	for key, k := range all {
		is, err := store.Get(t.Context(), key)
		if !errors.Is(err, state.ErrNotFound) {
			require.NoError(t, err, key)
		}
		if strings.HasPrefix(key, "own-") {
			require.True(t, k.may[is], "acknowledged and lost, or made up: %s is %d; it may be %v", key, is, k.may)
			continue
		}
		for value, times := range k.acked {
			require.Equal(t, 1, times, "%s was counted to %d more than once", key, value)
		}
		require.GreaterOrEqual(t, is, k.last, "a count of %s was acknowledged and lost", key)
		missing := is - len(k.acked) // counts of which nobody was told
		require.GreaterOrEqual(t, missing, 0, "%s was acknowledged more often than it was counted", key)
		require.LessOrEqual(t, missing, k.open, "%s was counted by nobody", key)
	}
}
