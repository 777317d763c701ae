package state_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
)

// A writer saves the numbers from 1 under a key of its own, each on condition of the one before, and writes down what it was
// told of each.
type writer struct {
	key     string
	number  int          // saved last, or tried to
	acked   int          // the last that was acknowledged
	maybe   map[int]bool // after it: outcome unknown
	late    time.Duration
	unmade  map[int]bool // told to have changed nothing
	refused int          // how many
	unknown int
	wrong   error
}

// writers is how many write at once.
const writers = 32

const writerPatience = 500 * time.Millisecond

// run writes until ctx ends.
func (w *writer) run(ctx context.Context, store *state.Store[jsontext.Value], acknowledged *atomic.Int64) {
	etag := ""
	for ctx.Err() == nil && w.wrong == nil {
		w.number++
		next, err := w.save(store, etag)
		switch {
		case err == nil:
			etag, w.acked, w.maybe = next, w.number, map[int]bool{}
			acknowledged.Add(1)
			continue
		case errors.Is(err, state.ErrOutcomeUnknown):
			w.maybe[w.number] = true
			w.unknown++
		case errors.Is(err, state.ErrUnavailable), errors.Is(err, state.ErrConflict): // one of those unknown was made later
			w.unmade[w.number] = true
			w.refused++
		default:
			w.wrong = err
		}
		if found, err := w.look(ctx, store); err == nil {
			etag = found
		}
	}
}

func (w *writer) save(store *state.Store[jsontext.Value], etag string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), writerPatience)
	defer cancel()
	defer w.clock(time.Now())
	return store.TrySave(ctx, w.key, jsontext.Value(strconv.Itoa(w.number)), etag)
}

func (w *writer) clock(start time.Time) { w.late = max(w.late, time.Since(start)-writerPatience) }

// look waits until the key can be read, checks that it holds what it may hold, and returns its ETag.
func (w *writer) look(ctx context.Context, store *state.Store[jsontext.Value]) (string, error) {
	for ctx.Err() == nil {
		entry, err := w.get(ctx, store)
		if errors.Is(err, state.ErrUnavailable) || errors.Is(err, context.Canceled) {
			continue
		}
		if errors.Is(err, state.ErrNotFound) {
			entry.Value, err = jsontext.Value("0"), nil
		}
		if err != nil {
			return "", err
		}
		n, err := strconv.Atoi(string(entry.Value))
		if err == nil && n != w.acked && !w.maybe[n] {
			err = fmt.Errorf("%s holds %d; acknowledged: %d, unknown: %v, told to be unmade: %v", w.key, n, w.acked, w.maybe, w.unmade[n])
		}
		w.wrong = err
		return entry.ETag, err
	}
	return "", ctx.Err()
}

func (w *writer) get(ctx context.Context, store *state.Store[jsontext.Value]) (state.Entry[jsontext.Value], error) {
	ctx, cancel := context.WithTimeout(ctx, writerPatience)
	defer cancel()
	defer w.clock(time.Now())
	return store.GetWithETag(ctx, w.key)
}

// endure lets writers write while harm is done, each time after some have been acknowledged, and counts. It returns what was
// not as it may be, for the caller to judge.
func endure(t *testing.T, store *state.Store[jsontext.Value], times int, harm func(round int) error) (lost int) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	all := make([]*writer, writers)
	keys := writerKeys()
	var acknowledged atomic.Int64
	var wait sync.WaitGroup
	for i := range all {
		all[i] = &writer{key: keys[i], maybe: map[int]bool{}, unmade: map[int]bool{}}
		wait.Go(func() { all[i].run(ctx, store, &acknowledged) })
	}
	more := func() {
		from := acknowledged.Load()
		require.Eventually(t, func() bool { return acknowledged.Load() > from+5*writers }, patience, 5*time.Millisecond)
	}
	for round := range times {
		more()
		require.NoError(t, harm(round))
	}
	more()
	stop()
	wait.Wait()
	var sum writer
	for _, w := range all {
		if w.wrong == nil {
			patient, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			_, err := w.look(patient, store)
			cancel()
			w.wrong = err
		}
		if w.wrong != nil {
			lost++
			t.Log(w.wrong)
		}
		sum.refused, sum.unknown, sum.late = sum.refused+w.refused, sum.unknown+w.unknown, max(sum.late, w.late)
	}
	t.Logf("%d saves acknowledged, %d unknown, %d refused; %d of %d keys not as they may be; at most %v over the deadline", acknowledged.Load(), sum.unknown,
		sum.refused, lost, writers, sum.late.Round(time.Millisecond))
	require.Less(t, sum.late, 10*time.Second, "over a deadline")
	return lost
}

// Whatever happens to a Redis that writes to disk before it answers: what was acknowledged is there, and what is said not to
// have been made was not made.
func TestRedisHarmed(t *testing.T) {
	server := servers.NewRedis(t, servers.RedisOptions{})
	admin := redisClient(t, server.URL)
	for _, harm := range []struct {
		name  string
		times int
		do    func(int) error
	}{
		{"killed", 3, func(int) error { return errors.Join(server.Kill(), server.Restart(t.Context())) }},
		{"paused", 2, func(int) error {
			err := server.Pause()
			<-time.After(2 * writerPatience)
			return errors.Join(err, server.Resume())
		}},
		{"connections cut", 10, func(int) error { return admin.ClientKillByFilter(t.Context(), "TYPE", "normal").Err() }},
		{"connections cut and no others taken", 3, func(int) error {
			err := errors.Join(admin.ConfigSet(t.Context(), "maxclients", "1").Err(), admin.ClientKillByFilter(t.Context(), "TYPE", "normal").Err())
			<-time.After(writerPatience)
			return errors.Join(err, admin.ConfigSet(t.Context(), "maxclients", "1000").Err())
		}},
	} {
		t.Run(harm.name, func(t *testing.T) {
			store := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}}), state.StoreConfig{Name: "s", KeyPrefix: t.Name()})
			require.Zero(t, endure(t, store, harm.times, harm.do), "acknowledged and lost, or refused and made")
		})
	}
}

// Sentinels make the replica the master. Redis replicates after it has answered, so the last writes may be lost; what is
// shown is that nothing else is, and that writers go on without being told.
func TestRedisSentinelFailover(t *testing.T) {
	sentinel := servers.NewRedisSentinel(t, servers.SentinelOptions{})
	d := newRedis(t, redisstate.Config{URLs: sentinel.URLs, MasterName: sentinel.Name})
	store := openRaw(t, d, state.StoreConfig{Name: "s"})
	lost := endure(t, store, 1, func(int) error {
		master, err := sentinel.Master(t.Context())
		if err != nil {
			return err
		}
		return master.Kill()
	})
	t.Logf("keys whose last acknowledged saves were lost: %d", lost)
}

// A replica takes the place of a master of a cluster that is killed.
func TestRedisClusterFailover(t *testing.T) {
	cluster := servers.NewRedisCluster(t, servers.RedisClusterOptions{Replicas: 1})
	store := openRaw(t, newRedis(t, redisstate.Config{URLs: cluster.URLs()}), state.StoreConfig{Name: "s"})
	lost := endure(t, store, 1, func(int) error {
		err := cluster.Nodes[0].Kill()
		require.Eventually(t, func() bool { return cluster.Roles(t.Context())[3] == "master" }, patience, 50*time.Millisecond, "a replica takes its place")
		return err
	})
	t.Logf("keys whose last acknowledged saves were lost: %d", lost)
	began := time.Now()
	require.Eventually(t, func() bool { _, err := store.GetBulk(t.Context(), writerKeys()); return err == nil }, patience, 10*time.Millisecond)
	t.Logf("all keys can be read %v after", time.Since(began).Round(time.Millisecond))
}

func writerKeys() []string {
	keys := make([]string, writers)
	for i := range keys {
		keys[i] = fmt.Sprintf("w%d", i)
	}
	return keys
}
