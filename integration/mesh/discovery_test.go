package mesh

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/membership"
)

// A new instance is used within 100 ms of its registration, by callers in other processes. Nothing but the event leads them
// to it: their directories do not read the registry again in the time of the test. On a machine so busy that an event alone takes long, it is within
// ten times what one takes.
func TestANewInstanceIsUsedSoon(t *testing.T) {
	eachBroker(t, func(t *testing.T, p place) {
		const rounds = 20
		first := p.serve(t, "app", "first", nil)
		caller := p.join(t)
		name, err := caller.call(t.Context(), "app")
		require.NoError(t, err)
		require.Equal(t, "first", name)
		e := endpoint("app", "new")
		e.Port = portOf(t, p.serve(t, "other", "new", nil))
		bare := make(chan time.Time, 1)
		stop, err := caller.feed.Watch(t.Context(), func(c mesh.Change) {
			if c.Endpoint.AppID == "bare" {
				select {
				case bare <- time.Now():
				default: // heard twice
				}
			}
		})
		require.NoError(t, err)
		defer stop()
		var distances, events []time.Duration
		for range rounds {
			begin := time.Now()
			require.NoError(t, first.feed.Announce(t.Context(), mesh.Change{Kind: mesh.ChangeDeregistered,
				Endpoint: mesh.Endpoint{AppID: "bare", InstanceID: "bare", LastSeen: begin}}))
			select {
			case at := <-bare:
				events = append(events, at.Sub(begin))
			case <-time.After(patience):
				t.Fatal("an event alone did not reach the caller")
			}
			begin = time.Now()
			require.NoError(t, first.registry.Register(t.Context(), e))
			for name = ""; name != "new"; {
				name, err = caller.call(t.Context(), "app")
				require.NoError(t, err)
				require.Less(t, time.Since(begin), patience, "the event did not reach the caller")
			}
			distances = append(distances, time.Since(begin))
			_, err = first.registry.Deregister(t.Context(), "app", "new")
			require.NoError(t, err)
			require.Eventually(t, func() bool { return len(caller.directory.Endpoints("app")) == 1 }, patience, time.Millisecond)
		}
		slices.Sort(distances)
		slices.Sort(events)
		t.Logf("from the call of Register until a caller was answered by the new instance, %d times: median %v, longest %v; of an event alone: median %v",
			rounds, distances[rounds/2], distances[rounds-1], events[rounds/2])
		require.Less(t, distances[rounds/2], max(100*time.Millisecond, 10*events[rounds/2]))
	})
}

func portOf(t *testing.T, s *served) int {
	t.Helper()
	list, err := s.registry.Endpoints(t.Context(), "other", false)
	require.NoError(t, err)
	require.Len(t, list, 1)
	return list[0].Port
}

// A node that is told to end says so, goes on to answer while callers learn of it, here a tenth of a second late, and then
// gets nothing any more: under load no attempt fails.
func TestADrainedInstanceGetsNoNewRequest(t *testing.T) {
	eachBroker(t, func(t *testing.T, p place) {
		const notice = 2 * time.Second // longer than a busy machine stops for: then callers hear too late
		stays := p.serve(t, "app", "stays", nil)
		leaves := p.serve(t, "app", "leaves", func(c *membership.Config) { c.DrainNotice = notice })
		p.late = 100 * time.Millisecond
		callers := []*node{p.join(t), p.join(t)}
		for _, c := range callers {
			require.Len(t, c.directory.Endpoints("app"), 2)
		}
		ctx, end := context.WithCancel(t.Context())
		var sent, failed atomic.Int64
		var load sync.WaitGroup
		for i := range 8 {
			load.Go(func() {
				for ctx.Err() == nil {
					sent.Add(1)
					if _, err := callers[i%2].call(context.Background(), "app"); err != nil {
						failed.Add(1)
						t.Log(err)
					}
				}
			})
		}
		busy := func(s *served, more int) {
			begin, _ := s.asked()
			require.Eventually(t, func() bool { n, _ := s.asked(); return n >= begin+more }, patience, time.Millisecond)
		}
		busy(leaves, 500)
		told := make(chan time.Time, 1)
		stop, err := stays.feed.Watch(t.Context(), func(c mesh.Change) {
			if c.Kind == mesh.ChangeDegraded && c.Endpoint.Status == mesh.StatusShuttingDown {
				select {
				case told <- time.Now():
				default:
				}
			}
		})
		require.NoError(t, err)
		defer stop()
		leaves.drain()
		said := <-told
		await(t, func() bool {
			probe, err := net.Dial("tcp", leaves.host.Addr().String())
			return err != nil || probe.Close() != nil
		})
		busy(stays, 500)
		end()
		load.Wait()
		var refused int64
		for _, c := range callers {
			refused += c.attempts.failed.Load()
			if kept, ok := c.attempts.RoundTripper.(*http.Transport); ok {
				kept.CloseIdleConnections() // a host waits a while for connections on which nothing was sent yet
			}
		}
		n, last := leaves.asked()
		t.Logf("%d calls, %d failed, %d attempts failed; %d were answered by the one that left, the last %v after it was said",
			sent.Load(), failed.Load(), refused, n, last.Sub(said))
		require.Zero(t, failed.Load())
		require.Zero(t, refused)
		require.Less(t, last.Sub(said), notice, "callers had heard before the listener closed")
	})
}

// Without its broker a node starts, reads the registry and calls; with it again, it hears of changes. Without the registry
// the last known instances serve, and the directory says how old that is.
func TestRegistryOrBusAway(t *testing.T) {
	broker, err := url.Parse(servers.RabbitMQ(t).URL)
	require.NoError(t, err)
	store := servers.NewRedis(t, servers.RedisOptions{})
	brief := func(cfg *mesh.DirectoryConfig) {
		cfg.RefreshInterval, cfg.RefreshTimeout = 200*time.Millisecond, time.Second
	}
	onRabbit(store.URL, broker.String()).serve(t, "app", "one", nil)

	way := closedWay(t)
	behind := *broker
	behind.Host = way.address
	p := onRabbit(store.URL, behind.String())
	p.each = brief
	late := p.connect(t)
	late.run(t)
	require.Eventually(t, func() bool { return len(late.directory.Endpoints("app")) == 1 }, patience, 5*time.Millisecond,
		"a node that starts without its broker reads the registry")
	name, err := late.call(t.Context(), "app")
	require.NoError(t, err)
	require.Equal(t, "one", name)
	require.NoError(t, late.registry.Register(t.Context(), endpoint("app", "two")), "what is written stands")
	require.Eventually(t, func() bool { return len(late.directory.Endpoints("app")) == 2 }, patience, 5*time.Millisecond,
		"and goes on to read it")
	_, err = late.registry.Deregister(t.Context(), "app", "two")
	require.NoError(t, err)
	way.open(t, broker.Host)
	select {
	case <-late.directory.Running():
	case <-time.After(patience):
		t.Fatal("it does not watch the bus that is back")
	}

	require.NoError(t, store.Kill())
	await(t, func() bool { age, read := late.directory.Age(); return read && age > time.Second })
	name, err = late.call(t.Context(), "app")
	require.NoError(t, err, "the last known instances serve")
	require.Equal(t, "one", name)
	require.Greater(t, late.directory.State().Age, time.Second)
	require.NoError(t, store.Restart(t.Context()))
	await(t, func() bool { age, _ := late.directory.Age(); return age < time.Second })
}

func await(t *testing.T, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 5*time.Millisecond)
}

// A node that joins knows the present mappings when others first hear of it.
func TestANodeJoinsWithThePresentMappings(t *testing.T) {
	eachBroker(t, func(t *testing.T, p place) {
		admin := p.join(t)
		announced := make(chan string, 9)
		stop, err := admin.feed.Watch(t.Context(), func(c mesh.Change) {
			if c.Kind == mesh.ChangeRegistered {
				announced <- c.Endpoint.InstanceID
			}
		})
		require.NoError(t, err)
		defer stop()
		for _, instance := range []string{"a", "b", "c"} {
			m, err := admin.registry.SetMappings(t.Context(), map[string]string{"game": "app-" + instance}, "admin")
			require.NoError(t, err)
			// Its directory is not run: what it knows, it imported.
			joins := p.connect(t)
			var known atomic.Int64
			member, err := membership.NewMember(membership.Config{Registry: joins.registry, Bus: joins.bus, AppID: "app", InstanceID: instance,
				Host: "127.0.0.1", Port: 1, Import: func(ctx context.Context) error {
					err := joins.directory.Refresh(ctx)
					known.Store(joins.directory.Mappings().Version)
					return err
				}})
			require.NoError(t, err)
			require.NoError(t, member.Start(t.Context()))
			require.Equal(t, instance, <-announced)
			require.Equal(t, m.Version, known.Load())
			require.Equal(t, "app-"+instance, joins.directory.AppID("game"))
			require.NoError(t, member.Stop(t.Context()))
		}
	})
}

// A set of mappings reaches every node as one value, an empty one resets, and one that is older than what is in force is
// refused, also when it is announced on the bus.
func TestMappingsReachEveryNode(t *testing.T) {
	eachBroker(t, func(t *testing.T, p place) {
		nodes := []*node{p.join(t), p.join(t), p.join(t)}
		reach := func(m mesh.Mappings) {
			t.Helper()
			for _, n := range nodes {
				await(t, func() bool { return n.directory.Mappings().Version == m.Version })
				require.Equal(t, m.Services, n.directory.Mappings().Services)
			}
		}
		m, err := nodes[0].registry.SetMappings(t.Context(), map[string]string{"game": "games", "chat": "chats"}, "admin")
		require.NoError(t, err)
		reach(m)
		ctx, end := context.WithCancel(t.Context())
		var readers sync.WaitGroup
		defer readers.Wait()
		defer end()
		for _, n := range nodes {
			readers.Go(func() {
				for seen := int64(0); ctx.Err() == nil; runtime.Gosched() {
					version := n.directory.Mappings().Version
					if version < seen {
						t.Errorf("version %d came after %d", version, seen)
						return
					}
					seen = version
				}
			})
		}
		old := m
		if m, err = nodes[1].registry.SetMappings(t.Context(), map[string]string{"game": "arena"}, "admin"); err != nil {
			t.Fatal(err)
		}
		reach(m)
		require.NoError(t, nodes[2].feed.Announce(t.Context(), mesh.Change{Kind: mesh.ChangeMappings, Mappings: old}))
		applied, err := nodes[2].registry.ApplyMappings(t.Context(), old)
		require.NoError(t, err)
		require.False(t, applied)
		reset, err := nodes[2].registry.SetMappings(t.Context(), nil, "admin")
		require.NoError(t, err)
		reach(reset)
		for _, n := range nodes {
			require.Equal(t, "bannou", n.directory.AppID("game"))
		}
	})
}

// A way is an address where nobody listens until it is opened; then it leads to a server, until the test is over.
type way struct {
	address string
	life    context.Context
	passing sync.WaitGroup
}

func closedWay(t *testing.T) *way {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	w := &way{address: l.Addr().String()}
	var end context.CancelFunc
	w.life, end = context.WithCancel(context.Background())
	t.Cleanup(func() { end(); w.passing.Wait() })
	return w
}

func (w *way) open(t *testing.T, to string) {
	t.Helper()
	l, err := net.Listen("tcp", w.address)
	require.NoError(t, err)
	context.AfterFunc(w.life, func() { _ = l.Close() })
	w.passing.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			w.passing.Go(func() { pass(w.life, from, to) })
		}
	})
}

// pass carries bytes both ways until either side or the context ends.
func pass(ctx context.Context, from net.Conn, address string) {
	to, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		_ = from.Close()
		return
	}
	both := sync.OnceFunc(func() { _ = from.Close(); _ = to.Close() })
	defer context.AfterFunc(ctx, both)()
	var ways sync.WaitGroup
	ways.Go(func() { defer both(); _, _ = io.Copy(to, from) })
	ways.Go(func() { defer both(); _, _ = io.Copy(from, to) })
	ways.Wait()
}
