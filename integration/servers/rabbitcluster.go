package servers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// RabbitCluster is a cluster of RabbitMQ nodes. Each of Nodes can be killed, stopped, paused and started again by itself, as a broker that is
// alone can; all have the same users, virtual hosts and queues.
type RabbitCluster struct {
	Nodes []*RabbitServer

	mapper *Server // Erlang's port mapper, by which the nodes find each other
}

// StartRabbitCluster starts a cluster of n nodes, which the caller has to Close. It returns when all are members of it and take AMQP connections.
// The options are those of every node. An error is ErrMissing when rabbitmq-server is not installed.
func StartRabbitCluster(ctx context.Context, n int, o RabbitOptions) (*RabbitCluster, error) {
	members, err := rabbitMembers(n, o)
	if err != nil {
		return nil, err
	}
	c, _, err := onFreePorts(ctx, rabbitProduct(), 1+n*portCount, func(ctx context.Context, ports []int) (*RabbitCluster, error) {
		return startCluster(ctx, members, ports)
	})
	return c, err
}

// rabbitMembers are nodes that agree on cookie and password. The first is alone, the others join it: nodes that are to found a cluster together
// take turns in steps of seconds, and wait for those that are not there yet.
func rabbitMembers(n int, o RabbitOptions) ([]rabbitNode, error) {
	first, err := newRabbitNode("n1@localhost", o)
	members := []rabbitNode{first}
	for i := 2; i <= n; i++ {
		m := first
		m.name = fmt.Sprintf("n%d@localhost", i)
		m.options.Config += "\ncluster_formation.peer_discovery_backend = classic_config\ncluster_formation.classic_config.nodes.1 = " + first.name +
			"\ncluster_formation.classic_config.nodes.2 = " + m.name
		members = append(members, m)
	}
	return members, err
}

// startCluster starts the port mapper on the first of the ports, and the nodes on the others.
func startCluster(ctx context.Context, members []rabbitNode, ports []int) (*RabbitCluster, error) {
	c := &RabbitCluster{Nodes: make([]*RabbitServer, len(members))}
	var err error
	if c.mapper, err = mapperPlan(members[0].epmd).launch(ctx, ports[:1]); err != nil {
		return nil, err
	}
	start := func(i int) error {
		own := slices.Clone(ports[1+i*portCount : 1+(i+1)*portCount])
		own[portEPMD] = ports[0]
		s, err := members[i].plan(members[i].broker).launch(ctx, own)
		if err != nil {
			return err
		}
		s.name += " " + members[i].name
		c.Nodes[i] = members[i].server(s, own)
		return nil
	}
	if err = start(0); err == nil {
		err = c.each(func(i int) error {
			if i == 0 {
				return nil
			}
			return start(i)
		})
	}
	if err == nil {
		err = c.Await(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close()) //nolint:contextcheck // also when the context has ended
	}
	return c, nil
}

// mapperPlan runs a port mapper by itself.
func mapperPlan(epmd string) plan {
	return plan{
		product: rabbitProduct(),
		ports:   1,
		prepare: func(_ context.Context, f *folder, ports []int) ([]command, error) {
			return []command{epmdCommand(f, epmd, ports[0])}, nil
		},
		probe: func(ctx context.Context, ports []int) error { return reachable(ctx, local(ports[0])) },
	}
}

// Await returns when all nodes run as members of the cluster and every quorum queue has more replicas at work than it needs: then one node may be
// harmed, and the queues go on. It takes about 1 s.
func (c *RabbitCluster) Await(ctx context.Context) error {
	first := c.Nodes[0]
	if _, err := first.Ctl(ctx, "await_online_nodes", strconv.Itoa(len(c.Nodes))); err != nil {
		return err
	}
	_, err := first.tool(ctx, "rabbitmq-upgrade", "await_online_quorum_plus_one")
	return err
}

// URLs are the addresses of all nodes, in their order.
func (c *RabbitCluster) URLs() []string {
	var urls []string
	for _, n := range c.Nodes {
		urls = append(urls, n.URL)
	}
	return urls
}

// Logs returns the last lines of what each node has written.
func (c *RabbitCluster) Logs() string {
	var out strings.Builder
	for _, n := range c.Nodes {
		fmt.Fprintf(&out, "\n%s:%s", n.name, n.Logs())
	}
	return out.String()
}

// Close ends all nodes at once and removes their folders. Closing it again changes nothing.
func (c *RabbitCluster) Close() error {
	err := c.each(func(i int) error {
		if c.Nodes[i] == nil { // it was not started
			return nil
		}
		return c.Nodes[i].Close()
	})
	return errors.Join(err, c.mapper.Close())
}

// each does something with all nodes at once.
func (c *RabbitCluster) each(do func(i int) error) error {
	failures := make([]error, len(c.Nodes))
	var all sync.WaitGroup
	for i := range c.Nodes {
		all.Go(func() { failures[i] = do(i) })
	}
	all.Wait()
	return errors.Join(failures...)
}
