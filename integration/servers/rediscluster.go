package servers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A cluster has so many masters, among which its slots are divided. A node that is not heard for clusterDown is down, and a
// replica of it becomes a master about as long after.
const (
	clusterMasters = 3
	clusterSlots   = 16384
	clusterDown    = time.Second
)

// RedisCluster is a Redis Cluster of three masters and their replicas, each with its own life.
type RedisCluster struct {
	// Nodes are the servers: the three masters first, as they were at the start, then the replicas; node i replicates node i-3.
	Nodes []*RedisServer

	password string
}

// RedisClusterOptions configures a Redis Cluster.
type RedisClusterOptions struct {
	// Replicas is how many each master has. Default 0.
	Replicas int
	// Redis configures each node.
	Redis RedisOptions
}

// StartRedisCluster starts a cluster, which the caller has to Close. It returns after 1 to 4 s, when every node says that all
// slots are served and every replica follows its master. An error is ErrMissing when redis-server is not installed.
func StartRedisCluster(ctx context.Context, o RedisClusterOptions) (*RedisCluster, error) {
	c := &RedisCluster{password: token()}
	err := c.start(ctx, o)
	if err == nil {
		err = c.found(ctx)
	}
	if err == nil {
		err = c.Await(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close()) //nolint:contextcheck // also when the context has ended
	}
	return c, nil
}

// NewRedisCluster starts a cluster for a test, and closes it when that is over.
func NewRedisCluster(t testing.TB, o RedisClusterOptions) *RedisCluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	c, err := StartRedisCluster(ctx, o)
	require(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for i, node := range c.Nodes {
				t.Logf("node %d:%s", i, node.Logs())
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// URLs are the addresses of all nodes, in their order.
func (c *RedisCluster) URLs() []string {
	urls := make([]string, len(c.Nodes))
	for i, node := range c.Nodes {
		urls[i] = node.URL
	}
	return urls
}

// start starts nodes that know nothing of each other.
func (c *RedisCluster) start(ctx context.Context, o RedisClusterOptions) error {
	for range clusterMasters * (1 + o.Replicas) {
		ports, err := freePorts(ctx, 1) // for the nodes to talk to each other; by default 10000 above the other
		if err != nil {
			return err
		}
		node := o.Redis
		node.Args = append([]string{
			"--databases", "1", "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(ports[0]), "--masterauth", c.password,
			"--cluster-node-timeout", strconv.FormatInt(clusterDown.Milliseconds(), 10), "--cluster-replica-validity-factor", "0",
			"--cluster-allow-replica-migration", "no", "--repl-diskless-sync-delay", "0",
		}, node.Args...)
		server, err := startRedis(ctx, node, c.password)
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, server)
	}
	return nil
}

// found makes a cluster of the nodes.
func (c *RedisCluster) found(ctx context.Context) error {
	ids := make([]string, len(c.Nodes))
	for i, node := range c.Nodes {
		err := c.ask(ctx, node, func(r *redis.Client) (err error) {
			if ids[i], err = r.ClusterMyID(ctx).Result(); err != nil || i >= clusterMasters {
				return err
			}
			return r.ClusterAddSlotsRange(ctx, i*clusterSlots/clusterMasters, (i+1)*clusterSlots/clusterMasters-1).Err()
		})
		if err != nil {
			return fmt.Errorf("give a node of a Redis Cluster its slots: %w", err)
		}
	}
	for _, node := range c.Nodes[1:] {
		if err := c.meet(ctx, node); err != nil {
			return fmt.Errorf("make the nodes of a Redis Cluster meet: %w", err)
		}
	}
	for i, node := range c.Nodes[clusterMasters:] {
		err := c.until(ctx, node, func(r *redis.Client) error { return r.ClusterReplicate(ctx, ids[i%clusterMasters]).Err() })
		if err != nil {
			return fmt.Errorf("make a node of a Redis Cluster a replica: %w", err)
		}
	}
	return nil
}

func (c *RedisCluster) meet(ctx context.Context, node *RedisServer) error {
	port := ""
	err := c.ask(ctx, node, func(r *redis.Client) error {
		config, err := r.ConfigGet(ctx, "cluster-port").Result()
		port = config["cluster-port"]
		return err
	})
	if err != nil {
		return err
	}
	host, at, _ := strings.Cut(node.Addr, ":")
	return c.ask(ctx, c.Nodes[0], func(r *redis.Client) error { return r.Do(ctx, "cluster", "meet", host, at, port).Err() })
}

// Await returns when every node runs and knows of a master for every slot, and every replica follows its master: then one
// master may be harmed, and a replica takes its place.
func (c *RedisCluster) Await(ctx context.Context) error {
	for _, node := range c.Nodes {
		err := c.until(ctx, node, func(r *redis.Client) error {
			info, err := r.ClusterInfo(ctx).Result()
			if err != nil {
				return err
			}
			if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r", len(c.Nodes))) {
				return fmt.Errorf("the cluster is not ready: %s", strings.Join(strings.Fields(info), " "))
			}
			replication, err := r.Info(ctx, "replication").Result()
			if err == nil && strings.Contains(replication, "master_link_status:down") {
				err = errors.New("a replica does not follow its master yet")
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("wait for a Redis Cluster: %w", err)
		}
	}
	return nil
}

// Roles says of each node whether it is a "master" or a "slave"; it is empty for one that does not answer.
func (c *RedisCluster) Roles(ctx context.Context) []string {
	roles := make([]string, len(c.Nodes))
	for i, node := range c.Nodes {
		_ = c.ask(ctx, node, func(r *redis.Client) error { // no role, then
			answer, err := r.Do(ctx, "role").Slice()
			if err == nil && len(answer) > 0 {
				roles[i], _ = answer[0].(string)
			}
			return err
		})
	}
	return roles
}

// Close ends all nodes at once and removes their folders. Closing it again changes nothing.
func (c *RedisCluster) Close() error {
	var failures []error
	for _, node := range c.Nodes {
		failures = append(failures, node.Close())
	}
	return errors.Join(failures...)
}

func (c *RedisCluster) ask(ctx context.Context, node *RedisServer, ask func(r *redis.Client) error) error {
	if err := reachable(ctx, node.Addr); err != nil { // the client would log it
		return err
	}
	client := redisClient(&redis.Options{Addr: node.Addr, Password: c.password})
	return errors.Join(ask(client), client.Close())
}

// until asks until there is no error.
func (c *RedisCluster) until(ctx context.Context, node *RedisServer, ask func(r *redis.Client) error) error {
	ticker := time.NewTicker(2 * poll)
	defer ticker.Stop()
	for {
		err := c.ask(ctx, node, ask)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%w (last: %w)", ctx.Err(), err)
		}
	}
}
