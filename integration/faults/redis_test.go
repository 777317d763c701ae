package faults_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
)

// Redis flushes its append-only file before each answer here: with less it may forget what it has confirmed.
func TestRedis(t *testing.T) {
	server := servers.NewRedis(t, servers.RedisOptions{})
	for _, f := range []fault{
		{name: "killed", times: 10, harm: func(ctx context.Context, _ *run) error {
			return errors.Join(server.Kill(), server.Restart(ctx))
		}},
		{name: "stopped (SIGSTOP) for 10 s", times: 1, harm: func(ctx context.Context, _ *run) error {
			return errors.Join(server.Pause(), faults.Pause(ctx, lasting(10*time.Second)), server.Resume())
		}},
		{name: "connections closed every 200 ms", times: 1, harm: func(ctx context.Context, _ *run) error {
			return withRedis(server.URL, func(c *redis.Client) error {
				for range lasting(10*time.Second) / (200 * time.Millisecond) {
					if err := errors.Join(closeRedisConnections(ctx, c), faults.Pause(ctx, 200*time.Millisecond)); err != nil {
						return err
					}
				}
				return nil
			})
		}},
		{name: "group dropped", times: 5, harm: func(ctx context.Context, r *run) error {
			return withRedis(server.URL, func(c *redis.Client) error {
				return c.XGroupDestroy(ctx, r.load.Topic, r.load.Topic+".bannou.load-0").Err()
			})
		}},
		poisoned(3),
		reopened(5),
	} {
		t.Run(f.name, func(t *testing.T) { endure(t, redisStream(server, 0), f) })
	}
	killed := consumerKilled()
	t.Run(killed.name, func(t *testing.T) { endure(t, redisStream(server, claimIdle), killed) })
}

// redisStream is Redis with a claim time; 0: the default.
func redisStream(server *servers.RedisServer, claim time.Duration) system {
	return system{
		url:    server.URL,
		driver: "redis", kind: "stream", share: faults.Share, slack: faults.Slack,
		open: func(log *slog.Logger) (bus.Driver, error) {
			return redisbus.New(redisbus.Config{URLs: []string{server.URL}, ClaimIdle: claim, Logger: log})
		},
		inspect: func(ctx context.Context) string { return groups(ctx, server.URL) },
	}
}

// groups is what Redis says of each stream's groups.
func groups(ctx context.Context, url string) string {
	said := ""
	err := withRedis(url, func(c *redis.Client) error {
		keys, err := c.Keys(ctx, "*").Result()
		for _, key := range keys {
			if of, err := c.XInfoGroups(ctx, key).Result(); err == nil { // the others are no streams
				for _, g := range of {
					said += fmt.Sprintf("%s: %s, %d pending, lag %d\n", key, g.Name, g.Pending, g.Lag)
				}
			}
		}
		return err
	})
	if err != nil {
		said += err.Error()
	}
	return said
}

// withRedis does something to a Redis as another program would.
func withRedis(url string, do func(c *redis.Client) error) error {
	o, err := redis.ParseURL(url)
	if err != nil {
		return err
	}
	c := redis.NewClient(o)
	defer func() { _ = c.Close() }()
	return do(c)
}
