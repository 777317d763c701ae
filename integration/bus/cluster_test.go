package bus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// What a bus keeps when one node of three is gone, case by case. What it does under load is in integration/faults.
func TestCluster(t *testing.T) {
	cluster := servers.NewRabbitCluster(t, 3, servers.RabbitOptions{})
	for _, bad := range []struct {
		name string
		test func(t *testing.T, cluster *servers.RabbitCluster)
	}{
		{"the leader between two buses is killed", leaderBetween},
		{"delayed and dead when their node is killed", delayedAndDead},
		{"home of classic queues is killed", classicHome},
		{"the connected node is silent", silentNode},
	} {
		require.NoError(t, cluster.Await(within(t, time.Minute)))
		if !t.Run(bad.name, func(t *testing.T) { bad.test(t, cluster) }) {
			return // the cluster may be in any state
		}
	}
}

// on opens a driver that knows these nodes alone.
func on(t *testing.T, kind rabbitbus.QueueType, nodes ...*servers.RabbitServer) *rabbitbus.Driver {
	t.Helper()
	return open(t, nodes[0].URL, func(c *rabbitbus.Config) {
		c.QueueType, c.Heartbeat = kind, time.Second
		if kind == rabbitbus.Classic { // its store is of another kind
			c.Exchange, c.DeadLetterExchange = "classic", "classic-dlx"
		}
		for _, n := range nodes[1:] {
			c.URLs = append(c.URLs, n.URL)
		}
	})
}

// made declares a queue over one node, which then leads it, or is its home.
func made(t *testing.T, kind rabbitbus.QueueType, node *servers.RabbitServer, q bus.Queue) {
	t.Helper()
	d := on(t, kind, node)
	require.NoError(t, subscribe(t, d, q).Close(within(t, patience)))
	require.NoError(t, d.Close(within(t, patience)))
}

// Neither of two buses is connected to the node that leads the queue between them. It dies while they work, and every
// publish is confirmed by its deadline all the same.
func leaderBetween(t *testing.T, cluster *servers.RabbitCluster) {
	const count, killedAt = 400, 100
	q := durable("between.one")
	made(t, rabbitbus.Quorum, cluster.Nodes[1], q)
	sender, c := on(t, rabbitbus.Quorum, cluster.Nodes[0]), subscribe(t, on(t, rabbitbus.Quorum, cluster.Nodes[2]), q)

	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range count {
			if i == killedAt {
				assert.NoError(t, cluster.Nodes[1].Kill())
			}
			assert.NoError(t, sender.Publish(within(t, patience), &bus.Message{RoutingKey: "between.one", ID: fmt.Sprint(i), Mandatory: true}))
		}
	}()
	handled, duplicated := map[string]bool{}, 0
	for len(handled) < count {
		got := next(t, c)
		if id := got.Message().ID; handled[id] {
			duplicated++
		} else {
			handled[id] = true
		}
		require.NoError(t, got.Ack())
	}
	<-sent
	t.Logf("sent %d, confirmed %d, handled %d, duplicated %d, lost 0", count, count, len(handled), duplicated)
	require.NoError(t, cluster.Nodes[1].Restart(within(t, time.Minute)))
}

// The node dies that leads a queue, its delay queue and the dead letters. What waited there is delivered, and read, over
// another one, while it is dead.
func delayedAndDead(t *testing.T, cluster *servers.RabbitCluster) {
	q := durable("delayed.one")
	made(t, rabbitbus.Quorum, cluster.Nodes[0], q)
	d := on(t, rabbitbus.Quorum, cluster.Nodes...)
	c := subscribe(t, d, q)
	publish(t, d, "delayed.one", "delayed")
	require.NoError(t, next(t, c).Retry(within(t, patience), 4*time.Second))
	require.NoError(t, d.Publish(within(t, patience), bus.DeadLetter(&bus.Message{RoutingKey: "delayed.one", ID: "dead"},
		bus.Discard{DeadLetterExchange: "bannou-dlx", Reason: bus.DiscardPermanent, At: time.Now()})))

	require.NoError(t, cluster.Nodes[0].Kill())
	got := next(t, c)
	require.Equal(t, "delayed", got.Message().ID)
	require.Equal(t, 2, got.Attempt())
	require.NoError(t, got.Ack())
	require.Equal(t, []string{"dead"}, letterIDs(t, d))
	require.NoError(t, cluster.Nodes[0].Restart(within(t, time.Minute)))
}

// letterIDs reads the dead-letter store.
func letterIDs(t *testing.T, d bus.Driver) []string {
	t.Helper()
	letters, err := d.Letters(within(t, patience))
	require.NoError(t, err)
	var ids []string
	for {
		letter, err := letters.Next(within(t, patience))
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		ids = append(ids, letter.Message().ID)
	}
	require.NoError(t, letters.Close(within(t, patience)))
	return ids
}

// A classic queue is on one node. When that dies nothing is confirmed for it that it would not have, other queues go on, and
// when the node is back the consumer is too, with all that was confirmed.
func classicHome(t *testing.T, cluster *servers.RabbitCluster) {
	const count = 50
	home := cluster.Nodes[1]
	q := durable("classic.one")
	made(t, rabbitbus.Classic, home, q) // and the dead-letter store with it
	sender := on(t, rabbitbus.Classic, cluster.Nodes[0])
	elsewhere := durable("classic.two")
	other := subscribe(t, sender, elsewhere)
	consumer := on(t, rabbitbus.Classic, cluster.Nodes...)
	c := subscribe(t, consumer, q)
	send := func(limit time.Duration, topic, id string) error {
		return sender.Publish(within(t, limit), &bus.Message{Exchange: "classic", RoutingKey: topic, ID: id, Mandatory: true})
	}
	for i := range count {
		require.NoError(t, send(patience, "classic.one", fmt.Sprint(i)))
	}

	require.NoError(t, home.Kill())
	for i := range 10 {
		begin := time.Now()
		require.Error(t, send(300*time.Millisecond, "classic.one", fmt.Sprint("refused-", i)), "its queue is away")
		require.Less(t, time.Since(begin), patience)
	}
	require.NoError(t, send(patience, "classic.two", "goes on"))
	require.Equal(t, "goes on", next(t, other).Message().ID)
	late := on(t, rabbitbus.Classic, cluster.Nodes...)
	require.NoError(t, late.Publish(within(t, patience), &bus.Message{Exchange: "classic", RoutingKey: "classic.two", ID: "new", Mandatory: true}),
		"a bus that comes while the node is away, with the dead-letter store on it")

	require.NoError(t, home.Restart(within(t, time.Minute)))
	require.Eventually(t, func() bool { return send(time.Second, "classic.one", "last") == nil }, patience, 50*time.Millisecond)
	missing := map[string]bool{"last": true}
	for i := range count {
		missing[fmt.Sprint(i)] = true
	}
	for len(missing) > 0 {
		got := next(t, c)
		delete(missing, got.Message().ID)
		_ = got.Ack() // what was taken before the node died cannot be acknowledged any more, and comes again
	}
}

// The node that a bus is connected to says nothing for longer than the heartbeat allows. The bus goes to another node, long
// before RabbitMQ itself gives the silent one up, which takes it a minute. Meanwhile publishes return by their deadlines.
func silentNode(t *testing.T, cluster *servers.RabbitCluster) {
	const name, limit = "silent-test", 500 * time.Millisecond
	d := open(t, cluster.Nodes[0].URL, func(c *rabbitbus.Config) {
		c.QueueType, c.Heartbeat, c.ConnectionName, c.URLs = rabbitbus.Quorum, time.Second, name, cluster.URLs()
	})
	require.Eventually(t, func() bool { return d.Ready(within(t, patience)) == nil }, patience, 10*time.Millisecond)
	silent := connected(t, cluster, name)
	q := durable("silent.one")
	made(t, rabbitbus.Quorum, cluster.Nodes[(silent+1)%3], q)
	c := subscribe(t, d, q)
	publish(t, d, "silent.one", "before")
	require.NoError(t, next(t, c).Ack())

	require.NoError(t, cluster.Nodes[silent].Pause())
	begin := time.Now()
	for {
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err := d.Publish(ctx, &bus.Message{RoutingKey: "silent.one", ID: "after", Mandatory: true})
		cancel()
		require.Less(t, time.Since(start), patience, "a publish outlived its deadline")
		if err == nil {
			break
		}
		require.Less(t, time.Since(begin), 30*time.Second, "%v", err)
	}
	missing := map[string]bool{"after": true}
	handle := func(got bus.Delivery) {
		delete(missing, got.Message().ID)
		require.NoError(t, got.Ack())
	}
	// RabbitMQ hands some of them to the consumer on the silent node, which it has not given up.
	for i, handled := 0, false; !handled; i++ {
		missing[fmt.Sprint(i)] = true
		publish(t, d, "silent.one", fmt.Sprint(i))
		select {
		case got := <-c.Deliveries():
			handle(got)
			handled = true
		case <-time.After(50 * time.Millisecond):
			require.Less(t, time.Since(begin), 30*time.Second, "nothing is consumed")
		}
	}
	t.Logf("published and consumed over another node %v after the first fell silent", time.Since(begin).Round(100*time.Millisecond))
	require.NoError(t, cluster.Nodes[silent].Restart(within(t, time.Minute)))
	for len(missing) > 0 {
		handle(next(t, c))
	}
}

// connected is the node that the connections of this name are on.
func connected(t *testing.T, cluster *servers.RabbitCluster, name string) int {
	t.Helper()
	said, err := cluster.Nodes[0].Ctl(within(t, patience), "list_connections", "pid", "client_properties")
	require.NoError(t, err)
	for line := range strings.Lines(said) {
		for i := range cluster.Nodes {
			if strings.Contains(line, name+".publish") && strings.Contains(line, fmt.Sprintf("n%d@localhost", i+1)) {
				return i
			}
		}
	}
	require.Fail(t, "no such connection", said)
	return 0
}
