package faults_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// withoutNode is how many events are to be settled while a node is dead: more than were at work when it died.
const withoutNode = 1000

// A bus on a cluster of three nodes loses one of them, and goes on without it. A quick run leaves that to the driver's tests
// on a cluster, in ../bus.
func TestRabbitMQCluster(t *testing.T) {
	if !*long {
		t.Skip("starting three brokers takes longer than all else in a quick run")
	}
	// RabbitMQ gives up a node that is silent after a minute; the test must not wait for that.
	c := &clustered{RabbitCluster: servers.NewRabbitCluster(t, 3, servers.RabbitOptions{Config: "net_ticktime = 5"})}
	c.random = rand.New(rand.NewPCG(*seed, 0)) // a schedule to be repeated
	for _, n := range c.Nodes {
		require.NoError(t, resendSoon(within(t, patience), n))
	}
	for _, f := range c.faults() {
		if !t.Run(f.name, func(t *testing.T) { endure(t, c.system(), f) }) {
			return // the cluster may be in any state
		}
	}
}

// clustered is a cluster that is harmed node by node.
type clustered struct {
	*servers.RabbitCluster

	random *rand.Rand
	victim *servers.RabbitServer // the node that was harmed last
}

func (c *clustered) system() system {
	return system{
		driver: "rabbitmq cluster", kind: string(rabbitbus.Quorum), share: faults.ClusterShare, slack: faults.ClusterSlack,
		open: func(log *slog.Logger) (bus.Driver, error) {
			return rabbitbus.New(rabbitbus.Config{URLs: c.URLs(), QueueType: rabbitbus.Quorum, Logger: log, Heartbeat: time.Second,
				RetryDelay: 100 * time.Millisecond, MaxRetryDelay: time.Second})
		},
		inspect: func(ctx context.Context) string {
			said, err := c.ctl(ctx, "list_queues", "name", "type", "state", "leader", "online", "messages_ready", "messages_unacknowledged", "consumers")
			return fmt.Sprint(said, err)
		},
	}
}

func (c *clustered) faults() []fault {
	connected := func(ctx context.Context, _ *run) error {
		role := []string{"publish", "consume"}[c.random.IntN(2)]
		return c.choose(ctx, `"bannou.`+role+`"`, "list_connections", "pid", "client_properties")
	}
	leading := func(ctx context.Context, r *run) error {
		return c.choose(ctx, r.load.Topic+".bannou.load-0\t", "list_queues", "name", "leader")
	}
	return []fault{
		{name: "connected node killed", times: 1, harm: func(ctx context.Context, r *run) error {
			return c.without(ctx, r, connected, (*servers.RabbitServer).Kill)
		}},
		{name: "queue's leader killed", times: 1, harm: func(ctx context.Context, r *run) error {
			return c.without(ctx, r, leading, (*servers.RabbitServer).Kill)
		}},
		{name: "connected node stopped (SIGSTOP)", times: 1, harm: func(ctx context.Context, r *run) error {
			return c.without(ctx, r, connected, (*servers.RabbitServer).Pause)
		}},
	}
}

// without takes a node away, waits until the load goes on without it, and starts it again: also one that was only stopped,
// which the others have given up meanwhile.
func (c *clustered) without(ctx context.Context, r *run, choose func(context.Context, *run) error, take func(*servers.RabbitServer) error) error {
	if err := choose(ctx, r); err != nil {
		return err
	}
	settled, begin := r.load.Ledger.Settled(), time.Now()
	if err := take(c.victim); err != nil {
		return err
	}
	for r.load.Ledger.Settled() < settled+withoutNode {
		if err := faults.Pause(ctx, pollPeriod); err != nil {
			return errors.Join(fmt.Errorf("the load does not go on without a node: %w", err), c.restart(ctx))
		}
	}
	r.log.Warn("the load goes on", "after", time.Since(begin))
	// A broker that starts among full publishers, on the same cores, takes four times as long.
	r.load.Ease(true)
	defer r.load.Ease(false)
	return errors.Join(c.restart(ctx), c.Await(ctx))
}

// restart starts the victim again.
func (c *clustered) restart(ctx context.Context) error {
	return errors.Join(c.victim.Restart(ctx), resendSoon(ctx, c.victim))
}

// choose makes a victim of the node that is named on the first line with these words, in what rabbitmqctl says.
func (c *clustered) choose(ctx context.Context, words string, question ...string) error {
	said, err := c.ctl(ctx, question...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(said) {
		if node := regexp.MustCompile(`\bn(\d)@localhost`).FindStringSubmatch(line); node != nil && strings.Contains(line, words) {
			c.victim = c.Nodes[node[1][0]-'1']
			return nil
		}
	}
	return fmt.Errorf("no node is named with %s in:\n%s", words, said)
}

// ctl asks a node that runs.
func (c *clustered) ctl(ctx context.Context, args ...string) (said string, err error) {
	for _, n := range c.Nodes {
		if said, err = n.Ctl(ctx, args...); !errors.Is(err, servers.ErrNotRunning) {
			return said, err
		}
	}
	return said, err
}
