package mesh

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/membership"
)

// patience is how long anything may take that has to happen in the end, on a machine that is busy with other things.
const patience = time.Minute

func TestMain(m *testing.M) {
	redis.SetLogger(silent{})
	os.Exit(servers.Main(m))
}

// silent is what the Redis client says of connections to a server that a test has killed.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// A place is where nodes meet: a registry's Redis, and a broker.
type place struct {
	redis  string                          // URL
	driver func() (bus.Driver, error)      // of the broker
	each   func(cfg *mesh.DirectoryConfig) // changes the directories' configuration; nil: none
	late   time.Duration                   // how much later than the bus directories hear of changes
}

// eachBroker runs a test with each kind of broker, on a Redis of its own.
func eachBroker(t *testing.T, test func(t *testing.T, p place)) {
	t.Run("rabbitmq", func(t *testing.T) { test(t, onRabbit(servers.Redis(t).URL, servers.RabbitMQ(t).URL)) })
	t.Run("redis", func(t *testing.T) {
		url := servers.Redis(t).URL
		test(t, place{redis: url, driver: func() (bus.Driver, error) { return redisbus.New(redisbus.Config{URLs: []string{url}}) }})
	})
}

func onRabbit(redis, broker string) place {
	return place{redis: redis, driver: func() (bus.Driver, error) {
		return rabbitbus.New(rabbitbus.Config{URLs: []string{broker}, RetryDelay: 50 * time.Millisecond, MaxRetryDelay: 200 * time.Millisecond})
	}}
}

// A node is what a process has of the mesh, with connections of its own.
type node struct {
	table     *membership.Table
	bus       *bus.Bus
	feed      *membership.Feed
	registry  *mesh.Registry
	directory *mesh.Directory
	client    *mesh.Client
	attempts  *attempts
}

// attempts count those that failed, also where the client then tried another instance.
type attempts struct {
	http.RoundTripper
	failed atomic.Int64
}

func (a *attempts) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := a.RoundTripper.RoundTrip(r)
	if err != nil {
		a.failed.Add(1)
	}
	return resp, err
}

// A lateFeed tells of changes some time after it heard of them.
type lateFeed struct {
	mesh.Feed
	by time.Duration
}

func (l lateFeed) Watch(ctx context.Context, fn func(mesh.Change)) (stop func(), err error) {
	if l.by == 0 {
		return l.Feed.Watch(ctx, fn)
	}
	return l.Feed.Watch(ctx, func(c mesh.Change) { time.AfterFunc(l.by, func() { fn(c) }) })
}

// connect makes a node. Its directory does not run yet.
func (p place) connect(t *testing.T) *node {
	t.Helper()
	n := &node{table: openTable(t, p.redis)}
	driver, err := p.driver()
	require.NoError(t, err)
	n.bus, err = bus.New(driver, bus.Config{})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_ = n.bus.Close(ctx) // its broker may be gone
		_ = driver.Close(ctx)
	})
	n.feed = membership.NewFeed(n.bus, nil)
	n.registry, err = mesh.NewRegistry(n.table, n.feed, mesh.RegistryConfig{})
	require.NoError(t, err)
	// Nothing is read again in the time of a test: what a directory learns after its first read, it learns by the bus.
	cfg := mesh.DirectoryConfig{RefreshInterval: time.Hour, MissInterval: time.Hour}
	if p.each != nil {
		p.each(&cfg)
	}
	n.directory = mesh.NewDirectory(n.registry, lateFeed{n.feed, p.late}, cfg)
	transport := mesh.NewTransport()
	t.Cleanup(transport.CloseIdleConnections)
	n.attempts = &attempts{RoundTripper: transport}
	n.client, err = mesh.NewClient(mesh.ClientConfig{Directory: n.directory, Balancer: mesh.RoundRobin(), SlowStart: -1, Transport: n.attempts})
	require.NoError(t, err)
	t.Cleanup(n.client.Close)
	return n
}

// join makes a node whose directory runs and follows the bus.
func (p place) join(t *testing.T) *node {
	t.Helper()
	n := p.connect(t)
	n.run(t)
	select {
	case <-n.directory.Running():
	case <-time.After(patience):
		t.Fatal("the directory does not come up")
	}
	return n
}

// run runs the directory for the length of the test.
func (n *node) run(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.directory.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
}

func openTable(t testing.TB, redis string) *membership.Table {
	t.Helper()
	driver, err := redisstate.New(redisstate.Config{URLs: []string{redis}})
	require.NoError(t, err)
	factory, err := state.NewFactory(membership.Stores("redis", "redis"), []state.Driver{driver}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = factory.Close() })
	table, err := membership.NewTable(factory)
	require.NoError(t, err)
	return table
}

// call calls an app-id and returns what answered.
func (n *node) call(ctx context.Context, app string) (string, error) {
	req, err := http.NewRequest(http.MethodPost, "/whoami", strings.NewReader("x"))
	if err != nil {
		return "", err
	}
	resp, err := n.client.Do(ctx, app, req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// A served node is one with a host, which is a member of the mesh and says its name.
type served struct {
	*node
	host  *host.Host
	drain context.CancelFunc // begins to stop

	mu    sync.Mutex
	times []time.Time // at which requests came
}

// serve joins and serves as an instance of an app-id.
func (p place) serve(t *testing.T, app, instance string, change func(*membership.Config)) *served {
	t.Helper()
	s := &served{node: p.join(t)}
	var err error
	s.host, err = host.New(host.Config{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	cfg := membership.Config{Registry: s.registry, Bus: s.bus, AppID: app, InstanceID: instance, Addr: s.host.Addr,
		InFlight: s.host.InFlight, Import: s.directory.Refresh}
	if change != nil {
		change(&cfg)
	}
	member, err := membership.NewMember(cfg)
	require.NoError(t, err)
	require.NoError(t, s.host.Add(whoami{served: s, name: instance}))
	require.NoError(t, s.host.Add(member))
	ctx, drain := context.WithCancel(context.Background())
	s.drain = drain
	ended := make(chan error, 1)
	go func() { ended <- s.host.Run(ctx) }()
	t.Cleanup(func() {
		drain()
		require.NoError(t, <-ended)
	})
	<-s.host.Started()
	return s
}

// whoami answers with its instance's name and notes when it was asked.
type whoami struct {
	host.Base
	*served
	name string
}

func (w whoami) Name() string { return "whoami" }

func (w whoami) Mount(mux *http.ServeMux) error {
	mux.HandleFunc("POST /whoami", func(rw http.ResponseWriter, _ *http.Request) {
		w.mu.Lock()
		w.times = append(w.times, time.Now())
		w.mu.Unlock()
		_, _ = io.WriteString(rw, w.name)
	})
	return nil
}

// asked returns how many requests came, and when the last one did.
func (s *served) asked() (n int, last time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n = len(s.times); n > 0 {
		last = s.times[n-1]
	}
	return n, last
}
