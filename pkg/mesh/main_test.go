package mesh_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func endpoint(app, instance string, services ...string) mesh.Endpoint {
	return mesh.Endpoint{AppID: app, InstanceID: instance, Host: "127.0.0.1", Port: 3500, Services: services}
}

func at(e mesh.Endpoint, address string) mesh.Endpoint {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		panic(err)
	}
	e.Host = host
	e.Port, _ = strconv.Atoi(port)
	return e
}

// A busyTable lets others run between any two of its calls, so that concurrent writers do meet.
type busyTable struct{ mesh.Table }

func (b busyTable) Get(ctx context.Context, key string) ([]byte, string, error) {
	defer runtime.Gosched()
	return b.Table.Get(ctx, key)
}

func newRegistry(t testing.TB, table mesh.Table, feed mesh.Feed) *mesh.Registry {
	t.Helper()
	r, err := mesh.NewRegistry(table, feed, mesh.RegistryConfig{})
	require.NoError(t, err)
	return r
}

// A world is a registry with a directory that follows it.
type world struct {
	table     *meshtest.Table
	feed      *meshtest.Feed
	registry  *mesh.Registry
	directory *mesh.Directory
	network   *network // nil: sockets
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{table: meshtest.NewTable(), feed: new(meshtest.Feed)}
	w.registry = newRegistry(t, w.table, w.feed)
	w.directory = mesh.NewDirectory(w.registry, w.feed, mesh.DirectoryConfig{RefreshInterval: time.Hour})
	run(t, w.directory)
	return w
}

// pass lets the time of a synctest bubble pass.
func pass(d time.Duration) { <-time.After(d) }

// run runs a directory for the length of the test.
func run(t testing.TB, d *mesh.Directory) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	select {
	case <-d.Running():
	case <-time.After(time.Minute):
		t.Fatal("the directory does not come up")
	}
}

func (w *world) register(t testing.TB, e mesh.Endpoint) {
	t.Helper()
	require.NoError(t, w.registry.Register(context.Background(), e))
}

// serve starts a server and registers it as an instance.
func (w *world) serve(t testing.TB, app, instance string, h http.Handler, services ...string) *httptest.Server {
	t.Helper()
	s := w.listen(t, h)
	w.register(t, at(endpoint(app, instance, services...), s.Listener.Addr().String()))
	return s
}

func (w *world) client(t testing.TB, cfg mesh.ClientConfig) *mesh.Client {
	t.Helper()
	cfg.Directory = w.directory
	if w.network != nil {
		cfg.Transport = w.transport(t)
	}
	c, err := mesh.NewClient(cfg)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}
