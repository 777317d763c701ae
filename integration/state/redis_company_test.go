package state_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
)

// Callers' commands travel together, and each caller gets what is its own: its value, its ETag, its error.
func TestRedisCompany(t *testing.T) {
	ctx := t.Context()
	server := servers.Redis(t)
	client := redisClient(t, server.URL)
	store := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}}), state.StoreConfig{Name: "s"})
	require.NoError(t, client.Set(ctx, "s:damaged", "no hash", 0).Err())
	const callers, times = 64, 50
	var wait sync.WaitGroup
	failures := make([]error, callers)
	for caller := range callers {
		wait.Go(func() { failures[caller] = alternate(ctx, store, caller, times) })
	}
	for range 4 {
		wait.Go(func() {
			for range times {
				if _, err := store.Get(ctx, "damaged"); !errors.Is(err, state.ErrCorrupt) {
					t.Errorf("a damaged key: %v", err)
				}
				if _, err := store.Save(ctx, "damaged", jsontext.Value("1")); !errors.Is(err, state.ErrCorrupt) {
					t.Errorf("a damaged key: %v", err)
				}
			}
		})
	}
	wait.Wait()
	require.NoError(t, errors.Join(failures...))
}

// alternate saves and reads a key of its own.
func alternate(ctx context.Context, store *state.Store[jsontext.Value], caller, times int) error {
	key, etag := fmt.Sprintf("k%d", caller), ""
	for n := 1; n <= times; n++ {
		value := strconv.Itoa(caller*1000 + n)
		next, err := store.TrySave(ctx, key, jsontext.Value(value), etag)
		if err != nil {
			return err
		}
		entry, err := store.GetWithETag(ctx, key)
		if err != nil {
			return err
		}
		if etag = next; entry.ETag != etag || string(entry.Value) != value || entry.Version != int64(n) {
			return fmt.Errorf("%s has %s, %s, version %d after the save of %s, %s", key, entry.Value, entry.ETag, entry.Version, value, etag)
		}
	}
	return nil
}

// While a server hangs each caller leaves by its own deadline. A write that was not sent by then is ErrUnavailable and is not
// made, not later either; one that was is ErrOutcomeUnknown.
func TestRedisLeavesCompany(t *testing.T) {
	server := servers.NewRedis(t, servers.RedisOptions{})
	store := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}, Timeout: time.Minute}), state.StoreConfig{Name: "s"})
	var wait sync.WaitGroup
	for caller := range 32 { // so that there are connections
		wait.Go(func() {
			if err := alternate(t.Context(), store, caller, 10); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	require.NoError(t, server.Pause())
	const callers = 40
	failures := make([]error, callers)
	reads := make([]error, callers)
	const value = `"unharmed"`
	within := func(caller int, call func(ctx context.Context) error) error {
		patience := time.Duration(100+caller*10) * time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		start := time.Now()
		err := call(ctx)
		if took := time.Since(start); took < patience-10*time.Millisecond || took > patience+20*time.Second { // not with the server's minute
			t.Errorf("a caller with %v left after %v: %v", patience, took, err)
		}
		return err
	}
	for caller := range callers {
		wait.Go(func() {
			own := jsontext.Value(value)
			failures[caller] = within(caller, func(ctx context.Context) error {
				_, err := store.Save(ctx, strconv.Itoa(caller), own)
				return err
			})
			copy(own, `"damaged!"`) // the bytes are the caller's again
		})
		wait.Go(func() {
			reads[caller] = within(caller, func(ctx context.Context) error { _, err := store.Get(ctx, "k0"); return err })
		})
	}
	wait.Wait()
	require.NoError(t, server.Resume())

	unknown := 0
	for caller, err := range failures {
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, reads[caller], state.ErrUnavailable)
		require.ErrorIs(t, reads[caller], context.DeadlineExceeded)
		if errors.Is(err, state.ErrOutcomeUnknown) {
			unknown++
			require.Eventually(t, func() bool {
				got, err := store.Get(t.Context(), strconv.Itoa(caller))
				return err == nil && string(got) == value
			}, patience, 10*time.Millisecond, "it had been sent")
		}
	}
	require.NotZero(t, unknown)
	require.NotEqual(t, callers, unknown)
	for caller, err := range failures {
		if !errors.Is(err, state.ErrOutcomeUnknown) {
			require.ErrorIs(t, err, state.ErrUnavailable)
			exists, err := store.Exists(t.Context(), strconv.Itoa(caller))
			require.NoError(t, err)
			require.False(t, exists, "it had not been sent")
		}
	}
	t.Logf("of %d writes %d had been sent", callers, unknown)
}

// Callers leave while the round trip that was to carry their writes waits for its connection. When that comes after all, only
// those who have stayed are served.
func TestRedisWithdrawn(t *testing.T) {
	server := servers.NewRedis(t, servers.RedisOptions{Volatile: true})
	store := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}, Timeout: time.Minute}), state.StoreConfig{Name: "s"})
	before := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}, Timeout: time.Minute}), state.StoreConfig{Name: "s"})
	_, err := before.Save(t.Context(), "loads the script", jsontext.Value("1"))
	require.NoError(t, err)
	require.NoError(t, server.Pause())
	save := func(key string, patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := store.Save(ctx, key, jsontext.Value("1"))
		return err
	}
	const impatient, patient = 20, 5
	failures, stayed := make([]error, impatient), make([]error, patient)
	var leaving, staying sync.WaitGroup
	leave := func(i int, patience time.Duration) {
		leaving.Go(func() { failures[i] = save(strconv.Itoa(i), patience) })
	}
	leave(0, 300*time.Millisecond) // those who go at once
	leave(1, 300*time.Millisecond)
	<-time.After(50 * time.Millisecond)
	for i := 2; i < impatient; i++ {
		leave(i, time.Duration(500+i*10)*time.Millisecond)
	}
	for i := range stayed {
		staying.Go(func() { stayed[i] = save(fmt.Sprintf("stays%d", i), time.Minute) })
	}
	leaving.Wait()
	require.NoError(t, server.Resume())
	staying.Wait()
	for i, err := range failures {
		require.ErrorIs(t, err, state.ErrUnavailable, "caller %d", i)
		exists, err := store.Exists(t.Context(), strconv.Itoa(i))
		require.NoError(t, err)
		require.False(t, exists, "caller %d had left", i)
	}
	require.NoError(t, errors.Join(stayed...))
}

// A server that takes no more connections: nothing is sent, whatever it says or does instead.
func TestRedisConnectionLimit(t *testing.T) {
	const limit = 20
	server := servers.NewRedis(t, servers.RedisOptions{Volatile: true, Args: []string{"--maxclients", strconv.Itoa(limit)}})
	store := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}}), state.StoreConfig{Name: "s"})
	var others []net.Conn
	for range limit {
		conn, err := net.Dial("tcp", server.Addr)
		require.NoError(t, err)
		others = append(others, conn)
	}
	for range 5 {
		requireAway(t, store)
	}
	for _, conn := range others {
		require.NoError(t, conn.Close())
	}
	require.Eventually(t, func() bool {
		_, err := store.Save(t.Context(), "k", jsontext.Value("1"))
		return err == nil
	}, patience, 10*time.Millisecond)
}

// What others do to a key's expiry shows, as soon as they write to it; and a save that keeps it keeps theirs.
func TestRedisExpiryOfOthers(t *testing.T) {
	ctx := t.Context()
	server := servers.Redis(t)
	client := redisClient(t, server.URL)
	store := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}}), state.StoreConfig{Name: "s"})
	hour := state.SaveOptions{Expiry: state.After(time.Hour)}
	for _, keys := range [][]string{{"k"}, {"k", "other", "absent"}} {
		expires := func() time.Time {
			entries, err := store.GetBulk(ctx, keys)
			require.NoError(t, err)
			require.True(t, entries[0].Found)
			return entries[0].ExpiresAt
		}
		for _, key := range keys[:min(2, len(keys))] {
			_, err := store.SaveWith(ctx, key, jsontext.Value("1"), hour)
			require.NoError(t, err)
		}
		require.WithinDuration(t, time.Now().Add(time.Hour), expires(), 5*time.Second)

		_, err := client.Eval(ctx, daprSet, []string{"s:k"}, "0", "2").Result()
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(time.Hour), expires(), 5*time.Second)
		require.NoError(t, client.Persist(ctx, "s:k").Err())
		require.Zero(t, expires())
		require.NoError(t, client.Expire(ctx, "s:k", time.Minute).Err())
		require.WithinDuration(t, time.Now().Add(time.Minute), expires(), 5*time.Second)

		_, err = store.SaveWith(ctx, "k", jsontext.Value("3"), state.SaveOptions{Expiry: state.Keep})
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(time.Minute), expires(), 5*time.Second)
		_, err = store.SaveWith(ctx, "k", jsontext.Value("4"), state.SaveOptions{Expiry: state.Never})
		require.NoError(t, err)
		require.Zero(t, expires())
		ttl, err := client.TTL(ctx, "s:k").Result()
		require.NoError(t, err)
		require.EqualValues(t, -1, ttl)
	}
}

// A server that has lost acknowledged writes, as one that took over may have, gives the versions again but not the ETags: who
// holds one of a write that is lost changes nothing.
func TestRedisETagOfLostWrite(t *testing.T) {
	ctx := t.Context()
	server := servers.Redis(t)
	client := redisClient(t, server.URL)
	store := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}}), state.StoreConfig{Name: "s"})
	_, err := store.Save(ctx, "k", jsontext.Value("1"))
	require.NoError(t, err)
	before, err := client.Dump(ctx, "s:k").Result()
	require.NoError(t, err)
	lost, err := store.Save(ctx, "k", jsontext.Value("2"))
	require.NoError(t, err)
	require.NoError(t, client.RestoreReplace(ctx, "s:k", 0, before).Err())

	other, err := store.SaveWith(ctx, "k", jsontext.Value("3"), state.SaveOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 2, other.Version, "that of the lost write")
	_, err = store.TrySave(ctx, "k", jsontext.Value("4"), lost)
	require.ErrorIs(t, err, state.ErrConflict)
}

// connections is how many a server has, without the one that asks.
func connections(t *testing.T, client *redis.Client) int {
	t.Helper()
	list, err := client.ClientList(t.Context()).Result()
	require.NoError(t, err)
	n := -1
	for _, c := range list {
		if c == '\n' {
			n++
		}
	}
	return n
}

// However many call at once, few connections carry it.
func TestRedisFewConnections(t *testing.T) {
	ctx := t.Context()
	server := servers.NewRedis(t, servers.RedisOptions{Volatile: true})
	store := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}}), state.StoreConfig{Name: "s"})
	var wait sync.WaitGroup
	for caller := range 200 {
		wait.Go(func() {
			if err := alternate(ctx, store, caller, 5); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	require.LessOrEqual(t, connections(t, redisClient(t, server.URL)), 8)
}
