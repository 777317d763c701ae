package e2e

import (
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// A node on real servers ends as soon as it has nothing left to do, with all kinds of subscriptions open.
func TestSIGTERMOnRealServers(t *testing.T) { eachBroker(t, endsOnSIGTERM) }

func endsOnSIGTERM(t *testing.T, broker string) {
	n := startNode(t, append(append(quick(), "--drain-timeout", "5m"), serversWith(t, broker)...)...) // who waits for what never comes, waits long
	url, calls := receiver(t, ok)
	s := direct(n.url)
	topic := topic("ending")
	s.must(t, "messaging/subscribe", object{"topic": topic, "callbackUrl": url})
	s.must(t, "messaging/subscribe", object{"topic": topic, "callbackUrl": url, "options": object{"durable": true}})
	s.must(t, "messaging/publish", object{"topic": topic, "payload": object{}})
	next(t, calls)
	next(t, calls)
	require.Equal(t, 0, n.stop(t), "%s", n.log)
	require.NotContains(t, n.log.String(), "level=ERROR")
}

// A callback that is at work when its node is told to end finishes, and what it did is not done again.
func TestSIGTERMLetsACallbackFinish(t *testing.T) { eachBroker(t, letsACallbackFinish) }

func letsACallbackFinish(t *testing.T, broker string) {
	args := append(quick(), serversWith(t, broker)...)
	n := startPlain(t, args...)
	begun, finish := make(chan struct{}), make(chan struct{})
	url, calls := receiver(t, func(n int64) int {
		if n == 1 {
			close(begun)
			<-finish
		}
		return http.StatusOK
	})
	topic := topic("finished")
	s := direct(n.url)
	s.must(t, "messaging/subscribe", object{"topic": topic, "callbackUrl": url, "options": object{"durable": true}})
	first := s.must(t, "messaging/publish", object{"topic": topic, "payload": object{}})
	<-begun
	require.NoError(t, n.cmd.Process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool { return strings.Contains(n.log.String(), "draining") }, patience, time.Millisecond)
	close(finish)
	select {
	case <-n.exited:
	case <-time.After(patience):
		t.Fatalf("the node did not end in %s:\n%s", patience, n.log)
	}
	require.Equal(t, 0, n.cmd.ProcessState.ExitCode(), "%s", n.log)
	require.Equal(t, first["messageId"], next(t, calls).header.Get("Bannou-Message-Id"))

	again := startPlain(t, args...)
	second := direct(again.url).must(t, "messaging/publish", object{"topic": topic, "payload": object{}})
	require.Equal(t, second["messageId"], next(t, calls).header.Get("Bannou-Message-Id"), "the first was done")
}

// A node goes on when the Redis that is its broker dies and its Sentinels make a replica the master: what it has confirmed
// is called back.
func TestNodeFollowsSentinels(t *testing.T) {
	redis := servers.NewRedisSentinel(t, servers.SentinelOptions{Replicas: 2})
	n := startNode(t, append(quick(), "--messaging-backend", "redis", "--messaging-redis-sentinel-urls", strings.Join(redis.URLs, ","),
		"--messaging-redis-master-name", redis.Name, "--messaging-redis-wait-replicas", "1")...)
	url, calls := receiver(t, ok)
	topic := topic("moved")
	s := direct(n.url)
	s.must(t, "messaging/subscribe", object{"topic": topic, "callbackUrl": url, "options": object{"durable": true}})
	published := s.must(t, "messaging/publish", object{"topic": topic, "payload": object{}})
	require.Equal(t, published["messageId"], next(t, calls).header.Get("Bannou-Message-Id"))
	require.NoError(t, redis.Nodes[0].Kill())
	awaited := map[string]bool{}
	for range 10 { // some are kept by the node until the next master is there
		awaited[s.must(t, "messaging/publish", object{"topic": topic, "payload": object{}})["messageId"].(string)] = true
	}
	for len(awaited) > 0 {
		delete(awaited, next(t, calls).header.Get("Bannou-Message-Id"))
	}
}

// Every confirmed event reaches a durable callback at least once, however often the node that calls it is killed. Redis is not
// asked here: there another takes over after the claim time, 30 s, what a killed node had in work.
func TestDurableCallbackSurvivesKills(t *testing.T) {
	args := append(quick(), append(realServers(t), "--services", "messaging")...)
	publisher := startNode(t, append(args, "--app-id", "publisher")...)
	address := freeAddress(t)
	start := func() *node {
		n := launch(t, address, append(args, "--app-id", "caller")...)
		n.waitReady(t)
		return n
	}
	caller := start()

	var mu sync.Mutex
	handled := map[string]bool{}
	url, calls := receiver(t, ok)
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	go func() {
		for {
			select {
			case c := <-calls:
				mu.Lock()
				handled[c.header.Get("Bannou-Message-Id")] = true
				mu.Unlock()
			case <-ended:
				return
			}
		}
	}()
	topic := topic("killed")
	direct(caller.url).must(t, "messaging/subscribe", object{"topic": topic, "callbackUrl": url, "options": object{"durable": true}})

	var confirmed []string
	for i := range 300 {
		status, answer := post(t, publisher.url+"/messaging/publish",
			object{"topic": topic, "payload": object{"n": i}, "options": object{"mandatory": true}})
		require.Equal(t, http.StatusOK, status, "%v", answer)
		confirmed = append(confirmed, answer["messageId"].(string))
		switch i % 100 {
		case 30:
			caller.kill()
		case 80:
			caller = start()
		}
	}
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		for _, id := range confirmed {
			if !handled[id] {
				return false
			}
		}
		return true
	}, patience, 20*time.Millisecond, "an event that was confirmed was never handled")
}
