package eventstore_test

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection/projectiontest"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// While writers append, a projection is rebuilt by processes of which one after the other is killed, and one stopped for longer than its lease. The
// server is killed, too. The rebuild goes on where it was; what it comes to equals the live version and what the events come to, byte by byte.
func TestRebuildKilledAndStopped(t *testing.T) {
	server := servers.NewMySQL(t, servers.MySQLOptions{})
	log := open(t, server.DSN, eventstore.Config{})
	db, err := sql.Open("mysql", server.DSN)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	model := projectiontest.Tables(t, projectiontest.Place{DB: db})
	const stored = 6000
	for i := range stored / eventstore.MaxAppendEvents {
		events := make([]eventstore.Event, eventstore.MaxAppendEvents)
		for j := range events {
			events[j] = eventstore.Event{Type: "x", Data: jsontext.Value(strconv.Itoa(j))}
		}
		_, err := log.Append(t.Context(), eventstore.StreamID{Category: "stored", ID: strconv.Itoa(i)}, eventstore.NoStream, events...)
		require.NoError(t, err)
	}
	first := startProcess(t, server.DSN, "project")
	commands, err := projection.Open(t.Context(), log, projection.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, commands.Close(context.WithoutCancel(t.Context()))) })
	reached := func(number int, position int64) projection.Status {
		var r projection.Status
		require.Eventually(t, func() bool {
			all, err := commands.List(t.Context(), "chains")
			for _, r = range all {
				if err == nil && r.Number == number && r.Position >= position {
					return true
				}
			}
			return false
		}, time.Minute, 5*time.Millisecond, "version %d at %d", number, position)
		return r
	}
	reached(1, stored)

	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			for ctx.Err() == nil { // what cannot be appended now, because the server is away, is not missed
				_, _ = log.Append(ctx, eventstore.StreamID{Category: "live", ID: strconv.Itoa(w)}, eventstore.Any, eventstore.Event{Type: "x", Data: jsontext.Value("1")})
			}
		})
	}
	defer writers.Wait()
	defer stop()
	built, err := commands.Rebuild(t.Context(), "chains", false)
	require.NoError(t, err)
	at := reached(built.Number, 1000)
	require.Equal(t, projection.Building, at.State)
	first.kill(t)
	second := startProcess(t, server.DSN, "project")
	at = reached(built.Number, at.Position+1000)
	require.Equal(t, projection.Building, at.State)
	require.NoError(t, second.cmd.Process.Signal(syscall.SIGSTOP))
	third := startProcess(t, server.DSN, "project")
	reached(built.Number, at.Position+1000)
	require.NoError(t, server.Kill())
	require.NoError(t, server.Restart(t.Context()))
	require.NoError(t, second.cmd.Process.Signal(syscall.SIGCONT)) // it believes that it has its lease
	require.Eventually(t, func() bool {
		live, err := commands.Live(t.Context(), "chains")
		return err == nil && live == built
	}, time.Minute, 5*time.Millisecond)
	stop()
	writers.Wait()
	head, err := log.Head(t.Context())
	require.NoError(t, err)
	require.Greater(t, head, int64(stored))
	reached(1, head)
	reached(2, head)
	before := projection.Version{Projection: "chains", Number: 1}
	require.Equal(t, model.Read(t, before).String(), model.Read(t, built).String(), "byte by byte")
	model.RequireRight(t, log, built)
	second.end(t)
	third.end(t)
	t.Logf("%d events, %d of them while it was rebuilt", head, head-stored)
}

// project follows the projection in a process of its own, a few events at a time.
func project(ctx context.Context, dsn string) error {
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: dsn})
	if err != nil {
		return err
	}
	log, err := mysqlevents.Open(driver, eventstore.Config{})
	if err != nil {
		return err
	}
	definition := projectiontest.InTables()
	definition.Batch = 50
	set, err := projection.Open(ctx, log, projection.Config{Definitions: []projection.Definition{definition}, Poll: 20 * time.Millisecond, Lease: time.Second})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return errors.Join(set.Close(context.WithoutCancel(ctx)), driver.Close())
}
