package dapr_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// lossless is Dapr's component on a RabbitMQ such that it loses nothing itself: by default its queues go with it, its messages are not written
// to disk nor confirmed, and what its app fails at is dropped.
func lossless(r *servers.RabbitServer) string {
	return "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: broker\nspec:\n  type: pubsub.rabbitmq\n  version: v1\n  metadata:\n" +
		"  - name: connectionString\n    value: " + strconv.Quote(r.URL) + "\n  - name: durable\n    value: \"true\"\n  - name: deletedWhenUnused\n    value: \"false\"\n" +
		"  - name: deliveryMode\n    value: \"2\"\n  - name: publisherConfirm\n    value: \"true\"\n  - name: requeueInFailure\n    value: \"true\"\n"
}

// A shared is a topic that an app behind a real daprd and a native node both publish and are both subscribed to.
type shared struct {
	t       *testing.T
	app     *app
	daprd   *servers.DaprdServer
	dapr    *side
	node    *nodeProcess
	mu      sync.Mutex
	native  map[string]int // how often a native handler got an event, by its mark
	arrived chan struct{}
}

// newShared starts both on the broker that the component and the flags name.
func newShared(t *testing.T, component, extra string, flags ...string) *shared {
	t.Helper()
	s := &shared{t: t, native: map[string]int{}, arrived: make(chan struct{}, 1)}
	callback := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.native[member(string(body), "mark")]++
		s.mu.Unlock()
		select {
		case s.arrived <- struct{}{}:
		default:
		}
	}))
	t.Cleanup(callback.Close)
	s.node = newNode(t, "messaging:\n  daprTopics:\n    orders:\n      publish: envelope\n      pubsub: broker\n"+extra, flags...)
	s.node.must("messaging/subscribe", `{"topic":"orders","callbackUrl":"`+callback.URL+`","options":{"durable":true,"group":"native"}}`)
	s.app = newApp(t, `[{"pubsubname":"broker","topic":"orders","route":"/on/orders"}]`)
	_, port, _ := strings.Cut(s.app.address(), ":")
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	s.daprd = servers.NewDaprd(t, servers.DaprdOptions{AppPort: number, Resources: []string{component}})
	s.dapr = &side{t: t, name: "dapr", url: s.daprd.URL, app: s.app}
	s.dapr.awaitReady()
	return s
}

// A nodeProcess is a native node that can be killed and started again with what it had.
type nodeProcess struct {
	t    *testing.T
	url  string
	args []string
	cmd  *exec.Cmd
	log  bytes.Buffer
}

func newNode(t *testing.T, settings string, flags ...string) *nodeProcess {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bannou.yaml")
	require.NoError(t, os.WriteFile(file, []byte(settings), 0o600))
	listen := freeAddress(t)
	n := &nodeProcess{t: t, url: "http://" + listen, args: append([]string{
		"serve", "--config", file, "--listen", listen, "--data-dir", t.TempDir(), "--log-level", "warn", "--messaging-retry-delay-ms", "50",
	}, flags...)}
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			t.Logf("the node:\n%s", n.log.String())
		}
	})
	n.start()
	return n
}

func (n *nodeProcess) start() {
	n.t.Helper()
	n.cmd = exec.Command(binary, n.args...)
	n.cmd.Stdout, n.cmd.Stderr = &n.log, &n.log
	require.NoError(n.t, n.cmd.Start())
	on := &side{t: n.t}
	require.Eventually(n.t, func() bool { return on.answers(n.url+"/readyz", http.StatusOK) }, wait, 20*time.Millisecond)
}

func (n *nodeProcess) kill() {
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait()
}

// post returns the status of the answer, 0 where there is none.
func (n *nodeProcess) post(path, body string) int { return postTo(n.url+"/"+path, body) }

func (n *nodeProcess) must(path, body string) {
	n.t.Helper()
	require.Equal(n.t, http.StatusOK, n.post(path, body), path)
}

func postTo(url, body string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0
	}
	request.Header.Set("Content-Type", asJSON)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// publish has one side publish n events, each again until it is confirmed, and calls at half of them.
func (s *shared) publish(from string, n int, half func()) {
	for i := range n {
		if i == n/2 {
			half()
		}
		mark := fmt.Sprintf("%s-%04d.", from, i)
		for {
			if from == "dapr" && postTo(s.daprd.URL+publish+"broker/orders", `{"mark":"`+mark+`","n":9007199254740993}`) == http.StatusNoContent ||
				from == "native" && s.node.post("messaging/publish", `{"topic":"orders","payload":{"mark":"`+mark+`","n":9007199254740993}}`) == http.StatusOK {
				break
			}
			time.Sleep(10 * time.Millisecond) // nobody answers; the other side is being started again
		}
	}
}

// heard counts what the app of Dapr got, by mark.
func (s *shared) heard() map[string]int {
	s.app.mu.Lock()
	defer s.app.mu.Unlock()
	heard := map[string]int{}
	for _, body := range s.app.got["/on/orders"] {
		heard[member(member(body, "data"), "mark")]++
	}
	return heard
}

func (s *shared) handled() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	handled := map[string]int{}
	for mark, n := range s.native {
		handled[mark] = n
	}
	return handled
}

// count waits until both sides have all n events of both publishers, and says what came how often.
func (s *shared) count(n int) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return len(s.heard()) >= 2*n && len(s.handled()) >= 2*n }, 2*wait, 50*time.Millisecond,
		"confirmed on each side: %d; of %d the app of Dapr has %d, the native handler %d", n, 2*n, len(s.heard()), len(s.handled()))
	for name, got := range map[string]map[string]int{"app of Dapr": s.heard(), "native handler": s.handled()} {
		more := 0
		for _, times := range got {
			more += times - 1
		}
		s.t.Logf("%s: sent and confirmed %d by each side, handled %d, again %d, lost %d", name, n, len(got), more, 2*n-len(got))
		require.Len(s.t, got, 2*n)
	}
}

// Both sides publish and read one topic, and each is killed in the middle: all that was confirmed reaches both, the data to the digit.
func (s *shared) losesNothing() {
	const n = 300
	var both sync.WaitGroup
	both.Go(func() {
		s.publish("dapr", n, func() {
			s.node.kill()
			s.node.start()
		})
	})
	both.Go(func() {
		s.publish("native", n, func() {
			require.NoError(s.t, s.daprd.Kill())
			require.NoError(s.t, s.daprd.Restart(s.t.Context()))
		})
	})
	both.Wait()
	s.count(n)
	envelope := s.app.deliveries("/on/orders", "native-0001.", 1, wait)[0]
	require.Equal(s.t, `"1.0" "orders" "broker" "bannou" "application/json"`, members(envelope, "specversion", "topic", "pubsubname", "source", "datacontenttype"))
	require.Equal(s.t, `"native-0001." 9007199254740993`, members(member(envelope, "data"), "mark", "n"))
	require.Equal(s.t, member(envelope, "id"), member(member(envelope, "data"), "eventId"))
}

func TestTopicSharedOnRabbitMQ(t *testing.T) {
	set := servers.All(t)
	s := newShared(t, lossless(set.RabbitMQ), "      durable: true\n      deletedWhenUnused: false\n", "--messaging-backend", "rabbitmq", "--messaging-rabbitmq-urls", set.RabbitMQ.URL)
	s.losesNothing()
}

func TestTopicSharedOnRedis(t *testing.T) {
	set := servers.All(t)
	component := redisComponent("broker", "pubsub.redis", set.Redis) +
		"  - name: processingTimeout\n    value: \"2s\"\n  - name: redeliverInterval\n    value: \"1s\"\n"
	s := newShared(t, component, "", "--messaging-backend", "redis", "--messaging-redis-url", set.Redis.URL)
	s.losesNothing()
}
