package migration_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// patience is how long anything is waited for on a machine that is busy.
const patience = 2 * time.Minute

// Of a service, its building blocks.
const (
	messaging = "messaging"
	stateful  = "state"
	calling   = "mesh"
	// publishing is of the topic alone: whether it goes out without Dapr's envelope.
	publishing = "topic"
)

// A place says which blocks of a service are native. The others are on Dapr.
type place map[string]bool

func (p place) with(block string, native bool) place {
	q := place{block: native}
	for other, is := range p {
		if other != block {
			q[other] = is
		}
	}
	return q
}

// flags are the settings that put a service there, as the guide names them. Of what is moved by decisions they say nothing.
func (p place) flags(service string) []string {
	choose := func(block, native string) string {
		if p[block] {
			return native
		}
		return "dapr"
	}
	all := []string{"BANNOU_MESSAGING_BACKEND=" + choose(messaging, "rabbitmq"), "BANNOU_MESH_BACKEND=" + choose(calling, "native")}
	if service != decided {
		all = append(all, "BANNOU_STATE_BACKEND="+choose(stateful, "native"))
	}
	return all
}

// An instance is a process of a service, with the sidecar that it stands beside.
type instance struct {
	service string
	at      place
	url     string
	cmd     *exec.Cmd
	exited  chan struct{}
	log     *lockedBuffer
	sidecar *servers.DaprdServer // nil: it has none

	inFlight sync.WaitGroup // calls that the load makes of it
}

// A world is the servers that all instances share.
type world struct {
	t    *testing.T
	set  servers.Set
	kept string // the folder of what was decided, a file for each service
}

// start starts an instance and returns when it is ready. sidecar false: it has none, which needs all blocks to be native.
func (w *world) start(service string, at place, sidecar bool) *instance {
	w.t.Helper()
	listen, taken := freeAddress(w.t), freeAddress(w.t)
	i := &instance{service: service, at: at, url: "http://" + listen, exited: make(chan struct{}), log: new(lockedBuffer)}
	if !sidecar {
		w.launch(i, listen, append(at.flags(service), "BANNOU_DAPR_ENABLED=false")...)
		w.awaitReady(i)
		return i
	}
	flags := append(at.flags(service), "BANNOU_DAPR_ENABLED=true")
	if at[messaging] {
		taken = listen // it takes no events from the sidecar, and calls as all others
	} else {
		flags = append(flags, "BANNOU_DAPR_SIDECAR_APP_LISTEN="+taken)
	}
	i.sidecar = servers.NewDaprd(w.t, servers.DaprdOptions{
		AppID: service, AppPort: portOf(w.t, taken), Resources: w.components(service), Args: []string{"--dapr-block-shutdown-duration", "1s"},
		Begin: func(port, _ int) { w.launch(i, listen, append(flags, "DAPR_HTTP_PORT="+strconv.Itoa(port))...) }, // each waits for the other
	})
	w.awaitReady(i)
	return i
}

// launch runs this program once more, as the service.
func (w *world) launch(i *instance, listen string, env ...string) {
	program, err := os.Executable()
	require.NoError(w.t, err)
	i.cmd = exec.Command(program, "serve", "--listen", listen, "--config", w.settings(i.service), "--data-dir", filepath.Join(w.t.TempDir(), "data"),
		"--migration-file", filepath.Join(w.kept, i.service+".json"), "--messaging-rabbitmq-urls", w.set.RabbitMQ.URL,
		"--messaging-rabbitmq-management-url", w.set.RabbitMQ.API, "--state-redis-url", w.set.Redis.URL, "--mesh-heartbeat-interval", "1s", "--log-level", "warn")
	if i.service == decided {
		i.cmd.Args = append(i.cmd.Args, "--state-mysql-dsn", w.set.MySQL.DSN)
	}
	i.cmd.Env = append(append(os.Environ(), described+"="+i.service), env...)
	i.cmd.Stdout, i.cmd.Stderr = i.log, i.log
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(w.t, i.cmd.Start())
	go func() {
		_ = i.cmd.Wait() // how it ended does not matter
		close(i.exited)
	}()
	w.t.Cleanup(func() {
		_ = i.cmd.Process.Kill()
		<-i.exited
		if w.t.Failed() {
			w.t.Logf("%s:\n%s", i.service, i.log)
		}
	})
}

// settings are the file of a service, the same wherever it is: its store, when it is native, is on Dapr's rows, and so is the topic, which has its
// envelope as long as apps of Dapr may read it. The store that is moved by decisions is compared with its native place.
func (w *world) settings(service string) string {
	file := filepath.Join(w.t.TempDir(), "bannou.yaml")
	place := fmt.Sprintf("{backend: redis, keyPrefix: %q}", service+"||")
	mirrors := ""
	if service == decided {
		at := fmt.Sprintf("keyPrefix: %q, tableName: %q", service+"||", w.set.MySQL.Database+".state")
		place, mirrors = "{backend: mysql, "+at+"}", fmt.Sprintf("  mirrors:\n    %s: {to: mysql, %s}\n", storeOf(service), at)
	}
	text := fmt.Sprintf("state:\n  stores:\n    %s: %s\n%smessaging:\n  daprTopics:\n    %s:\n      publish: envelope\n      pubsub: bannou-pubsub\n"+
		"      durable: true\n      deletedWhenUnused: false\n", storeOf(service), place, mirrors, topic)
	require.NoError(w.t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// components are the files of a service's sidecar. Those of the broker are the settings with which Dapr loses nothing: its queues stay without a
// reader, and what an app failed at comes again.
func (w *world) components(service string) []string {
	component := func(name, kind string, metadata ...string) string {
		text := "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: " + name + "\nspec:\n  type: " + kind + "\n  version: v1\n  metadata:\n"
		for i := 0; i < len(metadata); i += 2 {
			text += "  - name: " + metadata[i] + "\n    value: " + strconv.Quote(metadata[i+1]) + "\n"
		}
		return text
	}
	redis := w.set.Redis
	password := strings.TrimSuffix(strings.TrimPrefix(redis.URL, "redis://:"), "@"+redis.Addr+"/"+strconv.Itoa(redis.DB))
	store := component(storeOf(service), "state.redis", "redisHost", redis.Addr, "redisPassword", password, "redisDB", strconv.Itoa(redis.DB))
	if service == decided {
		server, _, _ := strings.Cut(w.set.MySQL.DSN, "/")
		store = component(storeOf(service), "state.mysql", "connectionString", server+"/?allowNativePasswords=true", "schemaName", w.set.MySQL.Database)
	}
	return []string{
		store,
		component("bannou-pubsub", "pubsub.rabbitmq", "connectionString", w.set.RabbitMQ.URL, "durable", "true", "deletedWhenUnused", "false",
			"requeueInFailure", "true", "deliveryMode", "2", "publisherConfirm", "true", "prefetchCount", "10"),
	}
}

func (w *world) awaitReady(i *instance) {
	w.t.Helper()
	ended := false
	require.Eventually(w.t, func() bool {
		select {
		case <-i.exited:
			ended = true
			return true
		default:
		}
		response, err := http.Get(i.url + "/readyz")
		if err != nil {
			return false
		}
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode == http.StatusOK
	}, patience, 20*time.Millisecond, i.service+" is not ready")
	if ended {
		require.FailNow(w.t, i.service+" ended while it started", "%s", i.log)
	}
}

// stop ends an instance as a platform does: what the load has begun with it ends, its sidecar stops taking events and then ends, then itself.
func (i *instance) stop(t *testing.T) {
	t.Helper()
	i.inFlight.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if i.sidecar != nil {
		require.NoError(t, i.sidecar.Stop(ctx))
	}
	require.NoError(t, i.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-i.exited:
	case <-ctx.Done():
		require.FailNow(t, i.service+" does not end", "%s", i.log)
	}
}

// kill ends an instance and its sidecar in the midst of what they do.
func (i *instance) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, i.cmd.Process.Kill())
	if i.sidecar != nil {
		require.NoError(t, i.sidecar.Kill())
	}
	<-i.exited
}

// freeAddress is one on which nobody listens, below the ports that outgoing connections are given.
func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := servers.FreeAddress(t.Context())
	require.NoError(t, err)
	return address
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	return number
}

// A lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
