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

// A bus on a cluster of three nodes loses one of them, and goes on without it.
func TestRabbitMQCluster(t *testing.T) {
	cluster := servers.NewRabbitCluster(t, 3, servers.RabbitOptions{})
	c := &clustered{RabbitCluster: cluster, random: rand.New(rand.NewPCG(*seed, 0))} //nolint:gosec // a schedule to be repeated
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
		driver: "rabbitmq cluster", kind: string(rabbitbus.Quorum),
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
		{name: "connected node killed", times: 2, harm: func(ctx context.Context, r *run) error {
			return c.without(ctx, r, connected, (*servers.RabbitServer).Kill, c.restart)
		}},
		{name: "queue's leader killed", times: 2, harm: func(ctx context.Context, r *run) error {
			return c.without(ctx, r, leading, (*servers.RabbitServer).Kill, c.restart)
		}},
		{name: "connected node stopped (SIGSTOP)", times: 1, harm: func(ctx context.Context, r *run) error {
			return c.without(ctx, r, connected, (*servers.RabbitServer).Pause, func(context.Context) error { return c.victim.Resume() })
		}},
	}
}

// without takes a node away, waits until the load goes on without it, and gives it back.
func (c *clustered) without(ctx context.Context, r *run, choose func(context.Context, *run) error, take func(*servers.RabbitServer) error,
	giveBack func(context.Context) error,
) error {
	if err := choose(ctx, r); err != nil {
		return err
	}
	settled, begin := r.load.Ledger.Settled(), time.Now()
	if err := take(c.victim); err != nil {
		return err
	}
	for r.load.Ledger.Settled() < settled+withoutNode {
		if err := faults.Pause(ctx, pollPeriod); err != nil {
			return errors.Join(fmt.Errorf("the load does not go on without a node: %w", err), giveBack(ctx))
		}
	}
	r.log.Warn("the load goes on", "after", time.Since(begin))
	fmt.Println("goes on after", time.Since(begin))
	return errors.Join(giveBack(ctx), c.Await(ctx))
}

// restart starts the node again that was killed.
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
