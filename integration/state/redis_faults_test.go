package state_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
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

// A server that is away is told at once and never as an absent key; when it is back, so is the driver, with the data.
func TestRedisKilled(t *testing.T) {
	server := servers.NewRedis(t, servers.RedisOptions{})
	d := newRedis(t, redisstate.Config{URLs: []string{server.URL}})
	store := openRaw(t, d, state.StoreConfig{Name: "s"})
	etag, err := store.Save(t.Context(), "k", jsontext.Value("1"))
	require.NoError(t, err)

	require.NoError(t, server.Kill())
	for range 20 { // more than there are connections
		requireAway(t, store)
	}
	require.ErrorIs(t, d.Ready(t.Context()), state.ErrUnavailable)

	require.NoError(t, server.Restart(t.Context()))
	require.Eventually(t, func() bool { return d.Ready(t.Context()) == nil }, patience, 10*time.Millisecond)
	entry, err := store.GetWithETag(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, etag, entry.ETag)
}

// A program starts before its server.
func TestRedisComesLater(t *testing.T) {
	server := servers.NewRedis(t, servers.RedisOptions{})
	require.NoError(t, server.Kill())
	store := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}}), state.StoreConfig{Name: "s"})
	requireAway(t, store)
	require.NoError(t, server.Restart(t.Context()))
	require.Eventually(t, func() bool {
		_, err := store.Save(t.Context(), "k", jsontext.Value("1"))
		return err == nil
	}, patience, 10*time.Millisecond)
}

// Sentinels that are away: no connection could be made, so nothing was sent.
func TestRedisSentinelsAway(t *testing.T) {
	addr := "127.0.0.1:" + freePort(t)
	d := newRedis(t, redisstate.Config{URLs: []string{"redis://" + addr}, MasterName: "main"})
	requireAway(t, openRaw(t, d, state.StoreConfig{Name: "s"}))
	require.ErrorIs(t, d.Ready(t.Context()), state.ErrUnavailable)
}

// Cluster nodes that are away, likewise.
func TestRedisClusterAway(t *testing.T) {
	d := newRedis(t, redisstate.Config{URLs: []string{"redis://127.0.0.1:" + freePort(t), "redis://127.0.0.1:" + freePort(t)}})
	requireAway(t, openRaw(t, d, state.StoreConfig{Name: "s"}))
	require.ErrorIs(t, d.Ready(t.Context()), state.ErrUnavailable)
}

func requireAway(t *testing.T, store *state.Store[jsontext.Value]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := store.Get(ctx, "k")
	require.ErrorIs(t, err, state.ErrUnavailable)
	_, err = store.Save(ctx, "k", jsontext.Value("2"))
	require.ErrorIs(t, err, state.ErrUnavailable)
	require.NotErrorIs(t, err, state.ErrOutcomeUnknown, "nothing was sent")
	_, err = store.Transact(ctx, []state.Op[jsontext.Value]{{Key: "k", Value: jsontext.Value("2")}})
	require.ErrorIs(t, err, state.ErrUnavailable)
	_, err = store.SaveBulk(ctx, []state.Item[jsontext.Value]{{Key: "k", Value: jsontext.Value("2")}, {Key: "l", Value: jsontext.Value("2")}})
	require.ErrorIs(t, err, state.ErrUnavailable, "of the call, not of each key alone")
	_, err = store.Len(ctx)
	require.ErrorIs(t, err, state.ErrUnavailable)
	require.NoError(t, ctx.Err(), "all that within the time")
}

// A server that hangs: the deadline holds. A read has failed; a write may have been made when the server goes on.
func TestRedisHangs(t *testing.T) {
	server := servers.NewRedis(t, servers.RedisOptions{})
	store := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}, Timeout: time.Minute}), state.StoreConfig{Name: "s"})
	_, err := store.Save(t.Context(), "k", jsontext.Value("1"))
	require.NoError(t, err)
	require.NoError(t, server.Pause())
	const deadline = 200 * time.Millisecond
	within := func(call func(ctx context.Context) error) error {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		start := time.Now()
		err := call(ctx)
		require.Less(t, time.Since(start), 20*time.Second) // not with the server's minute
		return err
	}
	err = within(func(ctx context.Context) error { _, err := store.Save(ctx, "k", jsontext.Value("2")); return err })
	require.ErrorIs(t, err, state.ErrOutcomeUnknown)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	err = within(func(ctx context.Context) error { _, err := store.Get(ctx, "k"); return err })
	require.ErrorIs(t, err, state.ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, server.Resume())

	entry, err := store.GetWithETag(t.Context(), "k")
	require.NoError(t, err)
	require.EqualValues(t, 2, entry.Version, "this one had been sent, and is made once")
}

// The answer to a write is lost on the way. The write was made, once: repeating it behind the caller's back could undo
// what others have done since. A cluster's client repeats commands by another rule than a single server's.
func TestRedisAnswerLost(t *testing.T) {
	t.Run("single", func(t *testing.T) {
		server := servers.NewRedis(t, servers.RedisOptions{Volatile: true})
		proxy := startProxy(t)
		proxy.server.Store(&server.Addr)
		losesAnswers(t, server, proxy, redisstate.Config{URLs: []string{proxy.url(server)}})
	})
	t.Run("cluster", func(t *testing.T) {
		proxy := startProxy(t)
		_, port := hostPort(t, proxy.addr)
		server := servers.NewRedis(t, servers.RedisOptions{Volatile: true, Args: []string{
			"--databases", "1", "--cluster-enabled", "yes", "--cluster-port", freePort(t), "--cluster-announce-port", port,
		}})
		proxy.server.Store(&server.Addr)
		client := redisClient(t, server.URL)
		require.NoError(t, client.ClusterAddSlotsRange(t.Context(), 0, 16383).Err())
		require.Eventually(t, func() bool { return client.Set(t.Context(), "probe", "1", 0).Err() == nil }, patience, 10*time.Millisecond)
		losesAnswers(t, server, proxy, redisstate.Config{URLs: []string{proxy.url(server)}, Cluster: true})
	})
}

func losesAnswers(t *testing.T, server *servers.RedisServer, proxy *proxy, cfg redisstate.Config) {
	ctx := t.Context()
	store := openRaw(t, newRedis(t, cfg), state.StoreConfig{Name: "s"})
	_, err := store.Save(ctx, "k", jsontext.Value("1"))
	require.NoError(t, err)

	proxy.drop.Store(true)
	_, err = store.Save(ctx, "k", jsontext.Value("2"))
	require.ErrorIs(t, err, state.ErrOutcomeUnknown)
	_, err = store.Transact(ctx, []state.Op[jsontext.Value]{{Key: "k", Value: jsontext.Value("3")}})
	require.ErrorIs(t, err, state.ErrOutcomeUnknown)
	results, err := store.SaveBulk(ctx, []state.Item[jsontext.Value]{{Key: "k", Value: jsontext.Value("4")}})
	require.NoError(t, err)
	require.ErrorIs(t, results[0].Err, state.ErrOutcomeUnknown)
	_, err = store.Get(ctx, "k")
	require.ErrorIs(t, err, state.ErrUnavailable)

	fields, err := redisClient(t, server.URL).HMGet(ctx, "s:k", "version", "data").Result()
	require.NoError(t, err)
	require.Equal(t, []any{"4", "4"}, fields, "each write was made once")

	proxy.drop.Store(false)
	require.Eventually(t, func() bool { _, err := store.Get(ctx, "k"); return err == nil }, patience, 10*time.Millisecond)
}

// A proxy passes connections on to a server. While drop is set, it cuts the connection instead of passing on an answer,
// unless it is the one to the handshake (HELLO).
type proxy struct {
	addr   string
	server atomic.Pointer[string]
	drop   atomic.Bool
}

// url is the server's, by way of the proxy.
func (p *proxy) url(server *servers.RedisServer) string {
	return strings.Replace(server.URL, server.Addr, p.addr, 1)
}

func startProxy(t *testing.T) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{addr: listener.Addr().String()}
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

func (p *proxy) pass(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	upstream, err := net.Dial("tcp", *p.server.Load())
	if err != nil {
		return
	}
	end := func() { _ = client.Close(); _ = upstream.Close() }
	defer context.AfterFunc(ctx, end)()
	var wait sync.WaitGroup
	wait.Go(func() { _, _ = io.Copy(upstream, client); end() })
	defer wait.Wait()
	defer end()
	buffer := make([]byte, 64<<10)
	for {
		n, err := upstream.Read(buffer)
		if err != nil || p.drop.Load() && !bytes.Contains(buffer[:n], []byte("proto")) {
			return
		}
		if _, err := client.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func hostPort(t *testing.T, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	return host, port
}

// freePort returns a port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	_, port := hostPort(t, listener.Addr().String())
	return port
}
