package dapr_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/program"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/host"
)

// asProgram is the variable that makes this binary the program orders.
const asProgram = "BANNOU_TEST_AS_PROGRAM"

// orders is a program with a service of its own and two stores, as `bannou new service` writes them.
func orders() int {
	return program.Main(program.Program{
		Name: "orders", Stores: []program.Store{{Name: "carts"}, {Name: "seen"}},
		New: func(p program.Parts) (host.Service, error) {
			s := &ordersService{parts: p}
			return s, p.Bus.HandleRaw("order.placed", "see", s.see, bus.SubscriptionOptions{})
		},
	}, "test")
}

type ordersService struct {
	host.Base
	parts program.Parts
}

func (*ordersService) Name() string { return "orders" }

// see notes what was handled, in a store.
func (s *ordersService) see(ctx context.Context, r *bus.Received) error {
	store, err := state.Open[jsontext.Value](ctx, s.parts.Factory, "seen")
	if err == nil {
		_, err = store.Save(ctx, r.MessageID, jsontext.Value(r.Body))
	}
	return err
}

func (s *ordersService) Mount(mux *http.ServeMux) error {
	answer := func(w http.ResponseWriter, v any, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("POST /orders/add", func(w http.ResponseWriter, r *http.Request) { // one more in the cart, on condition that nobody else did meanwhile
		store, err := state.Open[int](r.Context(), s.parts.Factory, "carts")
		if err != nil {
			answer(w, nil, err)
			return
		}
		entries, err := store.GetBulk(r.Context(), []string{"ada"})
		if err == nil {
			_, err = store.TrySave(r.Context(), "ada", entries[0].Value+1, entries[0].ETag)
		}
		if err != nil {
			answer(w, nil, err)
			return
		}
		answer(w, entries[0].Value+1, nil)
	})
	mux.HandleFunc("POST /orders/place", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			var id string
			id, err = s.parts.Bus.PublishRaw(r.Context(), "order.placed", body, bus.PublishOptions{})
			answer(w, id, err)
		}
	})
	mux.HandleFunc("GET /orders/seen/{id}", func(w http.ResponseWriter, r *http.Request) {
		store, err := state.Open[jsontext.Value](r.Context(), s.parts.Factory, "seen")
		var v jsontext.Value
		if err == nil {
			v, err = store.Get(r.Context(), r.PathValue("id"))
		}
		answer(w, json.RawMessage(v), err)
	})
	mux.HandleFunc("POST /orders/call", func(w http.ResponseWriter, r *http.Request) {
		_, err := mesh.Invoke[struct{}, struct{}](r.Context(), s.parts.Mesh, "elsewhere", "x", struct{}{})
		answer(w, "called", err)
	})
	return nil
}

// One program runs on daprd, with one store native, is moved by settings and a restart to the native rows of the same store and back, and nothing is lost.
func TestAProgramIsMovedBlockByBlock(t *testing.T) {
	redis := servers.Redis(t)
	resource := func(name, kind string) string {
		return component(name, kind, "redisHost", redis.Addr, "redisPassword", passwordOf(redis), "redisDB", database(redis))
	}
	listen, appListen, data := freeAddress(t), freeAddress(t), t.TempDir()
	_, appPort, err := net.SplitHostPort(appListen)
	require.NoError(t, err)
	number, err := strconv.Atoi(appPort)
	require.NoError(t, err)
	rows := filepath.Join(t.TempDir(), "rows.yaml")
	require.NoError(t, os.WriteFile(rows, []byte("state:\n  redisUrl: "+strconv.Quote(redis.URL)+"\n  stores:\n    carts: {backend: redis, keyPrefix: \"app||\"}\n"), 0o600))
	var httpPort int
	start := func(env ...string) (stop func()) {
		cmd := exec.Command(os.Args[0], "--listen", listen, "--data-dir", data, "--log-level", "warn", "--config", rows)
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		cmd.Env = append(append(os.Environ(), asProgram+"=1", "DAPR_HTTP_PORT="+strconv.Itoa(httpPort), "APP_PORT="+appPort), env...)
		require.NoError(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			if t.Failed() {
				t.Logf("orders, with %s:\n%s", env, log.String())
			}
		})
		return func() {
			require.NoError(t, cmd.Process.Signal(os.Interrupt))
			require.NoError(t, <-ended)
		}
	}
	s := &side{t: t, url: "http://" + listen}
	ready := func() {
		t.Helper()
		require.Eventually(t, func() bool { return s.answers(s.url+"/readyz", http.StatusOK) }, wait, 20*time.Millisecond)
	}
	handled := func() {
		t.Helper()
		id := strings.Trim(strings.TrimPrefix(s.call("POST", "/orders/place", `{"n":9007199254740991}`), "200 "), "\"\n ")
		require.Eventually(t, func() bool { return strings.Contains(s.call("GET", "/orders/seen/"+id, ""), `"n":9007199254740991`) }, wait, 20*time.Millisecond, id)
	}

	all := []string{"BANNOU_DAPR_ENABLED=true", "BANNOU_STATE_BACKEND_SEEN=native"}
	var stop func()
	d := servers.NewDaprd(t, servers.DaprdOptions{AppPort: number, Resources: []string{resource("carts", "state.redis"), resource("bannou-pubsub", "pubsub.redis")},
		Begin: func(port, _ int) { httpPort = port; stop = start(all...) }})
	ready()
	require.Equal(t, "200 1", s.call("POST", "/orders/add", ""))
	handled()
	require.Contains(t, s.call("POST", "/orders/call", ""), `the sidecar says of "elsewhere"`, "calls go through the sidecar")
	sidecar := &side{t: t, url: d.URL}
	require.Equal(t, "200 1", sidecar.call("GET", stateOf+"carts/ada", ""), "the row is Dapr's")
	stop()

	stop = start(append(all, "BANNOU_STATE_BACKEND_CARTS=native", "BANNOU_USE_NATIVE_MESH=true")...)
	ready()
	require.Equal(t, "200 2", s.call("POST", "/orders/add", ""), "the native driver goes on in the same row")
	require.NotContains(t, s.call("POST", "/orders/call", ""), "the sidecar says")
	handled()
	require.Equal(t, "200 2", sidecar.call("GET", stateOf+"carts/ada", ""))
	stop()

	stop = start(all...)
	ready()
	require.Equal(t, "200 3", s.call("POST", "/orders/add", ""), "and back")
	handled()
	stop()

	stop = start("BANNOU_DAPR_ENABLED=false")
	ready()
	require.Equal(t, "200 4", s.call("POST", "/orders/add", ""), "without a sidecar")
	handled()
	stop()

	cmd := exec.Command(os.Args[0], "--listen", listen, "--config", rows)
	cmd.Env = append(os.Environ(), asProgram+"=1", "BANNOU_DAPR_ENABLED=false", "BANNOU_MESSAGING_BACKEND_ORDERS=dapr")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "BANNOU_DAPR_ENABLED is false and BANNOU_MESSAGING_BACKEND_ORDERS", fmt.Sprint("contradictions end it at start: ", string(out)))
}
