package state_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

const (
	faultWriters  = 24 // more than there are lanes, so that transactions are shared
	faultDeadline = 2 * time.Second
)

// What was acknowledged stays, and what was refused was not made, whatever happens to the server or to its connections
// under load: alone, in shared transactions, in bulk and in Transact. Nobody is answered much later than its deadline.
func TestMySQLHarmedUnderLoad(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, server *servers.MySQLServer, w *writerGroup){
		"killed": func(t *testing.T, server *servers.MySQLServer, _ *writerGroup) {
			require.NoError(t, server.Kill())
			require.NoError(t, server.Restart(t.Context()))
		},
		"paused": func(t *testing.T, server *servers.MySQLServer, w *writerGroup) {
			before := w.count().failed()
			require.NoError(t, server.Pause())
			require.Eventually(t, func() bool { return w.count().failed() >= before+faultWriters }, patience, time.Millisecond)
			require.NoError(t, server.Resume())
		},
		"connections killed": func(t *testing.T, server *servers.MySQLServer, w *writerGroup) {
			db := openSQL(t, server.DSN)
			require.Eventually(t, func() bool {
				killConnections(t, db)
				return w.count().failed() >= faultWriters
			}, patience, 10*time.Millisecond)
		},
		"no connection left": func(t *testing.T, server *servers.MySQLServer, w *writerGroup) {
			db := openSQL(t, server.DSN)
			require.NoError(t, db.PingContext(t.Context()))
			others := openSQL(t, strings.Replace(server.DSN, "/"+server.Database, "/", 1))
			var taken []*sql.Conn
			require.Eventually(t, func() bool {
				taken = append(taken, takeConnections(t, others)...)
				killConnections(t, db) // the store's, which then finds that others have taken them
				return w.count().crowded >= faultWriters/2
			}, patience, 20*time.Millisecond)
			for _, conn := range taken {
				require.NoError(t, conn.Close())
			}
			require.NoError(t, others.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := servers.NewMySQL(t, servers.MySQLOptions{Args: []string{"--max-connections=60"}})
			e := openStore(t, newMySQL(t, mysqlstate.Config{DSN: server.DSN}))
			require.NoError(t, saveOne(t.Context(), e, "first"))
			w := startWriters(t, e)
			w.await(t, 20)
			harm(t, server, w)
			require.Eventually(t, func() bool { return saveOne(t.Context(), e, "last") == nil }, patience, 50*time.Millisecond)
			w.await(t, 20)
			w.stop()
			t.Logf("%+v", w.count())
			lost, wrong := w.compare(t, e)
			require.Zero(t, lost, "acknowledged and lost")
			require.Zero(t, wrong, "refused and made")
			require.NoError(t, errors.Join(w.wrong...))
			require.Less(t, w.latest, faultDeadline+20*time.Second)
		})
	}
}

func openSQL(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// killConnections ends all connections to the database but its own, whatever they are at.
func killConnections(t *testing.T, db *sql.DB) {
	t.Helper()
	var ids string
	require.NoError(t, db.QueryRow("SELECT COALESCE(GROUP_CONCAT(ID), '') FROM information_schema.PROCESSLIST"+
		" WHERE DB = DATABASE() AND ID <> CONNECTION_ID()").Scan(&ids))
	for id := range strings.SplitSeq(ids, ",") {
		_, _ = db.Exec("KILL CONNECTION " + id) // it may be gone by now
	}
}

// takeConnections takes all that the server has left.
func takeConnections(t *testing.T, pool *sql.DB) (taken []*sql.Conn) {
	t.Helper()
	for {
		conn, err := pool.Conn(t.Context())
		if err != nil {
			return taken
		}
		taken = append(taken, conn)
	}
}

// A writerGroup saves new keys, and keeps the books.
type writerGroup struct {
	cancel  context.CancelFunc
	wait    sync.WaitGroup
	written atomic.Int64

	mu                      sync.Mutex
	saved, refused, unknown []string
	crowded                 int // refused because the server had no connection left
	wrong                   []error
	latest                  time.Duration
}

// A count is what has become of the keys.
type count struct{ saved, refused, unknown, crowded int }

func (c count) failed() int { return c.refused + c.unknown }

func startWriters(t *testing.T, e state.Engine) *writerGroup {
	w := &writerGroup{}
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(t.Context())
	for worker := range faultWriters {
		w.wait.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				w.write(context.WithoutCancel(ctx), e, worker, i)
			}
		})
	}
	t.Cleanup(w.stop)
	return w
}

// write saves by itself, most of the time, or several keys at once.
func (w *writerGroup) write(ctx context.Context, e state.Engine, worker, i int) {
	ctx, cancel := context.WithTimeout(ctx, faultDeadline)
	defer cancel()
	n := 1
	if worker%8 == 0 {
		n = 3
	}
	changes := make([]state.Change, n)
	for k := range changes {
		changes[k] = state.Change{Key: fmt.Sprintf("%d-%d-%d", worker, i, k), Value: []byte(`{"v":1}`), Expiry: state.Keep, When: state.Condition(i % 2)}
	}
	begun := time.Now()
	var err error
	if worker%16 == 0 {
		_, err = e.Transact(ctx, changes)
	} else {
		_, err = e.Apply(ctx, changes)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latest = max(w.latest, time.Since(begun))
	for _, c := range changes {
		switch {
		case err == nil:
			w.saved = append(w.saved, c.Key)
			w.written.Add(1)
		case errors.Is(err, state.ErrOutcomeUnknown):
			w.unknown = append(w.unknown, c.Key)
		case errors.Is(err, state.ErrUnavailable):
			w.refused = append(w.refused, c.Key)
			if strings.Contains(err.Error(), "no connection left") {
				w.crowded++
			}
		default:
			w.wrong = append(w.wrong, err)
		}
	}
}

// await returns when each writer has, on average, written n more.
func (w *writerGroup) await(t *testing.T, n int64) {
	t.Helper()
	begun := w.written.Load()
	require.Eventually(t, func() bool { return w.written.Load() >= begun+n*faultWriters }, patience, time.Millisecond)
}

func (w *writerGroup) stop() {
	w.cancel()
	w.wait.Wait()
}

func (w *writerGroup) count() count {
	w.mu.Lock()
	defer w.mu.Unlock()
	return count{len(w.saved), len(w.refused), len(w.unknown), w.crowded}
}

func (w *writerGroup) compare(t *testing.T, e state.Engine) (lost, wrong int) {
	t.Helper()
	return len(w.saved) - countPresent(t, e, w.saved), countPresent(t, e, w.refused)
}

func countPresent(t *testing.T, e state.Engine, keys []string) (n int) {
	t.Helper()
	for len(keys) > 0 {
		part := keys[:min(len(keys), state.MaxBulkKeys)]
		present, err := e.Exists(t.Context(), part)
		require.NoError(t, err)
		for _, p := range present {
			if p {
				n++
			}
		}
		keys = keys[len(part):]
	}
	return n
}

// A connection that is lost when the change was sent and before its answer came: it may have been made, and its caller is
// told so. It is not made twice.
func TestMySQLLosesAnswers(t *testing.T) {
	server := servers.MySQL(t)
	p := startCutter(t, server.Addr)
	e := openStore(t, newMySQL(t, mysqlstate.Config{DSN: strings.Replace(server.DSN, server.Addr, p.addr, 1)}))
	require.NoError(t, saveOne(t.Context(), e, "k"))
	change := []state.Change{{Key: "k", Value: []byte(`"cut me off"`), Expiry: state.Keep}}
	for name, try := range map[string]struct {
		cut     string
		run     func(context.Context, []state.Change) ([]state.Outcome, error)
		is, not error
		made    int64
	}{
		"a single change":              {"cut me off", e.Apply, state.ErrOutcomeUnknown, state.ErrUnavailable, 1},
		"the commit of a transaction":  {"COMMIT", e.Transact, state.ErrOutcomeUnknown, state.ErrUnavailable, 1},
		"a transaction before that":    {"FOR UPDATE", e.Transact, state.ErrUnavailable, state.ErrOutcomeUnknown, 0},
		"a transaction while it wrote": {"cut me off", e.Transact, state.ErrUnavailable, state.ErrOutcomeUnknown, 0},
	} {
		before := version(t, e)
		p.cut.Store(&try.cut)
		_, err := try.run(t.Context(), change)
		p.cut.Store(nil)
		require.ErrorIs(t, err, try.is, name)
		require.NotErrorIs(t, err, try.not, name)
		require.Eventually(t, func() bool { return hasVersion(t.Context(), e, before+try.made) }, patience, 10*time.Millisecond, name)
	}
}

// A server that hangs when it is asked to commit holds nobody beyond the deadline either.
func TestMySQLCommitHangs(t *testing.T) {
	server := servers.MySQL(t)
	p := startCutter(t, server.Addr)
	e := openStore(t, newMySQL(t, mysqlstate.Config{DSN: strings.Replace(server.DSN, server.Addr, p.addr, 1)}))
	require.NoError(t, saveOne(t.Context(), e, "k"))
	commit := "COMMIT"
	p.silent.Store(true)
	p.cut.Store(&commit)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err := e.Transact(ctx, []state.Change{{Key: "k", Value: []byte("1"), Expiry: state.Keep}})
	require.ErrorIs(t, err, state.ErrOutcomeUnknown)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(begun), 20*time.Second)
	p.cut.Store(nil)
	require.Eventually(t, func() bool { return hasVersion(t.Context(), e, 2) }, patience, 10*time.Millisecond)
}

func version(t *testing.T, e state.Engine) int64 {
	t.Helper()
	records, err := e.Get(t.Context(), []string{"k"})
	require.NoError(t, err)
	return records[0].Version
}

// hasVersion is for conditions that are waited for.
func hasVersion(ctx context.Context, e state.Engine, want int64) bool {
	records, err := e.Get(ctx, []string{"k"})
	return err == nil && records[0].Version == want
}

// A cutter passes connections on to a server. When a client sends what is to be cut, the server gets it, and its answer
// does not come back: the connection ends.
type cutter struct {
	addr, server string
	cut          atomic.Pointer[string]
	silent       atomic.Bool // the connection does not end; it says nothing any more
}

func startCutter(t *testing.T, server string) *cutter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &cutter{addr: listener.Addr().String(), server: server}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			wait.Go(func() { p.pass(ctx, client) })
		}
	})
	t.Cleanup(func() { cancel(); _ = listener.Close(); wait.Wait() })
	return p
}

func (p *cutter) pass(ctx context.Context, client net.Conn) {
	upstream, err := net.Dial("tcp", p.server)
	if err != nil {
		_ = client.Close()
		return
	}
	end := func() { _ = client.Close(); _ = upstream.Close() }
	defer context.AfterFunc(ctx, end)()
	defer end()
	var cutting atomic.Bool
	var wait sync.WaitGroup
	wait.Go(func() {
		defer end()
		buffer := make([]byte, 1<<20)
		for {
			n, err := upstream.Read(buffer)
			if err != nil || cutting.Load() && !p.silent.Load() {
				return
			}
			if cutting.Load() {
				continue
			}
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
	})
	buffer := make([]byte, 1<<20)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			break
		}
		if cut := p.cut.Load(); cut != nil && bytes.Contains(buffer[:n], []byte(*cut)) {
			cutting.Store(true)
		}
		if _, err := upstream.Write(buffer[:n]); err != nil && !errors.Is(err, io.EOF) {
			break
		}
	}
	end()
	wait.Wait()
}
