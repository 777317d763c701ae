package state_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/migrate"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

// place opens a store of its own on an engine.
func place(t *testing.T, engine, store string) migrate.Place {
	t.Helper()
	var d state.Driver
	var err error
	switch engine {
	case "redis":
		d, err = redisstate.New(redisstate.Config{URLs: []string{servers.Redis(t).URL}})
	case "mysql":
		d, err = mysqlstate.New(mysqlstate.Config{DSN: servers.MySQL(t).DSN})
	case "sqlite":
		d, err = sqlitestate.New(sqlitestate.Config{Path: t.TempDir() + "/state.db"})
	case "memory":
		d = memorystate.New()
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return migrate.Place{Driver: d, Store: state.StoreConfig{Name: store}}
}

// Values, to the byte where engines keep that, and what is left of expiries come over between any two engines.
func TestMigrateAnyToAny(t *testing.T) {
	t.Parallel()
	engines := []string{"redis", "mysql", "sqlite", "memory"}
	for _, from := range engines {
		for _, to := range engines {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				migratePair(t, place(t, from, "auth"), place(t, to, "auth"))
			})
		}
	}
}

// hard are values that a careless copy changes.
func hard() map[string]string {
	values := map[string]string{
		"a": `{"n":9007199254740993,"d":0.10,"e":1E400}`, "a ": `[1.0,1,10e-1]`, "ä/*?[x]": `"é\u00e9\ud83d\ude00"`, "null": `null`,
		"nested": strings.Repeat("[", 30) + strings.Repeat("]", 30), "escaped": `{"\u0041":1,"b\"":"\u0000x"}`, "spaces": "{ \"a\" : [ 1 , 2 ] }",
		"large": `"` + strings.Repeat("x", 1<<20) + `"`,
	}
	for i := range 1200 {
		values[fmt.Sprintf("k-%04d", i)] = fmt.Sprintf(`{"i":%d}`, i)
	}
	return values
}

func migratePair(t *testing.T, from, to migrate.Place) {
	ctx := t.Context()
	old := openRaw(t, from.Driver, from.Store)
	for key, value := range hard() {
		_, err := old.Save(ctx, key, jsontext.Value(value))
		require.NoError(t, err, key)
	}
	_, err := old.SaveWith(ctx, "expires", jsontext.Value(`1`), state.SaveOptions{Expiry: state.After(time.Hour)})
	require.NoError(t, err)
	wantExpiry, err := old.GetWithETag(ctx, "expires")
	require.NoError(t, err)

	m, err := migrate.Open(ctx, migrate.Options{From: from, To: to})
	require.NoError(t, err)
	young := openRaw(t, to.Driver, to.Store)
	_, err = young.Save(ctx, "stranger", jsontext.Value(`1`))
	require.NoError(t, err)
	_, err = m.Copy(ctx)
	require.ErrorIs(t, err, migrate.ErrNotEmpty)
	require.ErrorContains(t, err, `"stranger"`)
	require.ErrorContains(t, err, "--overwrite")
	require.ErrorIs(t, m.CutOver(ctx), migrate.ErrPhase, "nothing has been copied")

	m, err = migrate.Open(ctx, migrate.Options{From: from, To: to, Overwrite: true})
	require.NoError(t, err)
	found, err := m.Copy(ctx)
	require.NoError(t, err)
	require.True(t, found.Equal(), "%+v", found)
	require.EqualValues(t, len(hard())+1, found.ToKeys)
	for key, value := range hard() {
		got, err := young.Get(ctx, key)
		require.NoError(t, err, key)
		if key == "escaped" && (from.Driver.Backend() == "mysql" || to.Driver.Backend() == "mysql") {
			value = `{"A":1,"b\"":"\u0000x"}` // MySQL's driver writes names as short as can be
		}
		require.Equal(t, value, string(got), key)
	}
	gotExpiry, err := young.GetWithETag(ctx, "expires")
	require.NoError(t, err)
	require.WithinDuration(t, wantExpiry.ExpiresAt, gotExpiry.ExpiresAt, 2*time.Second) // what counts as equal
	exists, err := young.Exists(ctx, "stranger")
	require.NoError(t, err)
	require.False(t, exists, "what the old place does not have is deleted with --overwrite")

	if from.Driver.Backend() != "redis" || to.Driver.Backend() != "mysql" {
		return
	}
	// Nothing is called the same that is not.
	restore := func() error {
		_, err := young.SaveWith(ctx, "a", jsontext.Value(hard()["a"]), state.SaveOptions{Expiry: state.Never})
		return err
	}
	for _, change := range []struct {
		what string
		make func() error
		mend func() error
	}{
		{"missing", func() error { _, err := young.Delete(ctx, "a"); return err }, restore},
		{"left over", func() error { _, err := young.Save(ctx, "more", jsontext.Value(`1`)); return err }, func() error { _, err := young.Delete(ctx, "more"); return err }},
		{"another value", func() error {
			_, err := young.Save(ctx, "a", jsontext.Value(`{"n":9007199254740992,"d":0.10,"e":1E400}`))
			return err
		}, restore},
		{"another expiry", func() error {
			_, err := young.SaveWith(ctx, "a", jsontext.Value(hard()["a"]), state.SaveOptions{Expiry: state.After(time.Minute)})
			return err
		}, restore},
	} {
		require.NoError(t, change.make())
		found, err := m.Compare(ctx)
		require.NoError(t, err)
		require.False(t, found.Equal(), change.what)
		require.NotEqual(t, found.FromChecksum, found.ToChecksum, change.what)
		require.EqualValues(t, 1, found.Different)
		require.Equal(t, change.what, found.Differences[0].What)
		require.NoError(t, change.mend())
	}
	found, err = m.Compare(ctx)
	require.NoError(t, err)
	require.True(t, found.Equal(), "%+v", found)
}

// A value that the new place does not take is named, and the others are copied.
func TestMigrateRefusedValues(t *testing.T) {
	t.Parallel()
	from, to := place(t, "redis", "auth"), place(t, "mysql", "auth")
	old := openRaw(t, from.Driver, from.Store)
	_, err := old.Save(t.Context(), "deep", jsontext.Value(strings.Repeat("[", 90)+strings.Repeat("]", 90)))
	require.NoError(t, err)
	for i := range 100 {
		_, err = old.Save(t.Context(), fmt.Sprint(i), jsontext.Value("1"))
		require.NoError(t, err)
	}
	m, err := migrate.Open(t.Context(), migrate.Options{From: from, To: to})
	require.NoError(t, err)
	found, err := m.Copy(t.Context())
	require.ErrorIs(t, err, migrate.ErrRefused)
	require.ErrorContains(t, err, `"deep"`)
	require.ErrorContains(t, err, "nested")
	require.EqualValues(t, 100, found.ToKeys)
	require.ErrorIs(t, m.CutOver(t.Context()), migrate.ErrPhase)
}

// The second migration of a store says who runs, and both places must differ.
func TestMigrateOneAtATime(t *testing.T) {
	t.Parallel()
	from, to := place(t, "redis", "auth"), place(t, "sqlite", "auth")
	old := openRaw(t, from.Driver, from.Store)
	_, err := old.Save(t.Context(), "k", jsontext.Value("1"))
	require.NoError(t, err)
	_, err = migrate.Open(t.Context(), migrate.Options{From: from, To: from})
	require.ErrorIs(t, err, migrate.ErrSamePlace)

	ctx, cancel := context.WithCancel(t.Context())
	begun := make(chan struct{})
	held := make(chan struct{})
	first, err := migrate.Open(ctx, migrate.Options{From: from, To: to, Report: func(migrate.Progress) {
		select {
		case <-begun:
		default:
			close(begun)
		}
		<-held
	}})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { _, err := first.Copy(ctx); done <- err }()
	<-begun
	second, err := migrate.Open(t.Context(), migrate.Options{From: from, To: to})
	require.NoError(t, err)
	_, err = second.Copy(t.Context())
	require.ErrorIs(t, err, migrate.ErrRunning)
	require.ErrorContains(t, err, "process ")
	close(held)
	require.NoError(t, <-done)
	cancel()
}

// A server that is killed while its keys are copied is waited for, on either side, also beyond the time of the lock that is kept there.
func TestMigrateServerAway(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"old", "new"} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			server := servers.NewRedis(t, servers.RedisOptions{})
			d := newRedis(t, redisstate.Config{URLs: []string{server.URL}})
			from, to := migrate.Place{Driver: d, Store: state.StoreConfig{Name: "auth"}}, place(t, "sqlite", "auth")
			if side == "new" {
				from, to = to, from
			}
			old := openRaw(t, from.Driver, from.Store)
			for page := range 6 {
				items := make([]state.Item[jsontext.Value], 1000)
				for i := range items {
					items[i] = state.Item[jsontext.Value]{Key: fmt.Sprint(page, "-", i), Value: jsontext.Value("1")}
				}
				_, err := old.SaveBulk(t.Context(), items)
				require.NoError(t, err)
			}
			killed, restarted := false, false
			var away time.Time
			m, err := migrate.Open(t.Context(), migrate.Options{From: from, To: to, Report: func(p migrate.Progress) {
				switch {
				case p.Step == "copy" && !killed:
					killed, away = true, time.Now()
					if err := server.Kill(); err != nil {
						t.Error(err)
					}
				case p.Note != "" && killed && !restarted && time.Since(away) > 7*time.Second:
					restarted = true
					if err := server.Restart(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}})
			require.NoError(t, err)
			found, err := m.Copy(t.Context())
			require.NoError(t, err)
			require.True(t, restarted)
			require.True(t, found.Equal(), "%+v", found)
			require.EqualValues(t, 6000, found.ToKeys)
		})
	}
}
