package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// How many Sentinels watch, how many of them must agree, and for how long they are to hear nothing first.
const (
	sentinelCount  = 3
	sentinelQuorum = 2
	sentinelDown   = time.Second
)

// RedisSentinel is a Redis with replicas and three Sentinels, which make a replica the master when the master has been
// silent for a second.
type RedisSentinel struct {
	// URLs are those of the Sentinels, as redis://user:password@host:port/0. User and password are those of the nodes: the
	// Sentinels ask for none.
	URLs []string
	// Name is the master's, as the Sentinels know it.
	Name string
	// Nodes are the servers, each with its own life. The first was the master at the start.
	Nodes []*RedisServer
	// Sentinels are the Sentinels, each with its own life.
	Sentinels []*Server

	watching []string // addresses of the Sentinels
}

// SentinelOptions configures a Redis with Sentinels.
type SentinelOptions struct {
	// Replicas is how many there are. Default 1.
	Replicas int
	// Redis configures each node.
	Redis RedisOptions
}

// StartRedisSentinel starts nodes and Sentinels, which the caller has to Close. It returns after 2 to 4 s, when every
// Sentinel knows all nodes and the other Sentinels. An error is ErrMissing when redis-server is not installed.
func StartRedisSentinel(ctx context.Context, o SentinelOptions) (*RedisSentinel, error) {
	s := &RedisSentinel{Name: "m" + token()}
	if err := s.start(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close()) //nolint:contextcheck // also when the context has ended
	}
	return s, nil
}

// NewRedisSentinel starts nodes and Sentinels for a test, and closes them when it is over.
func NewRedisSentinel(t testing.TB, o SentinelOptions) *RedisSentinel {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	s, err := StartRedisSentinel(ctx, o)
	require(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, server := range s.servers() {
				t.Logf("%s:%s", server.name, server.Logs())
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *RedisSentinel) start(ctx context.Context, o SentinelOptions) error {
	password := token()
	for i := range 1 + max(1, o.Replicas) {
		node := o.Redis
		node.Args = append([]string{"--masterauth", password, "--repl-diskless-sync-delay", "0"}, node.Args...)
		if i > 0 {
			host, port, _ := strings.Cut(s.Nodes[0].Addr, ":")
			node.Args = append(node.Args, "--replicaof", host, port)
		}
		server, err := startRedis(ctx, node, password)
		if err != nil {
			return err
		}
		s.Nodes = append(s.Nodes, server)
	}
	for range sentinelCount {
		server, address, err := startSentinel(ctx, s.Name, s.Nodes[0].Addr, password)
		if err != nil {
			return err
		}
		s.Sentinels, s.watching = append(s.Sentinels, server), append(s.watching, address)
		s.URLs = append(s.URLs, "redis://"+userinfo("", password)+address+"/0")
	}
	for _, address := range s.watching {
		if err := s.complete(ctx, address); err != nil {
			return err
		}
	}
	return nil
}

// startSentinel starts one. The password is that of what it watches.
func startSentinel(ctx context.Context, name, master, password string) (*Server, string, error) {
	program, err := redisProgram()
	if err != nil {
		return nil, "", err
	}
	host, port, _ := strings.Cut(master, ":")
	server, ports, err := launch(ctx, plan{
		product: product{name: "Sentinel", debian: "redis-server", fedora: "redis", homebrew: "redis", variable: RedisURL},
		ports:   1,
		prepare: func(_ context.Context, f *folder, ports []int) ([]command, error) {
			configuration := filepath.Join(f.path, "sentinel.conf") // which it rewrites
			lines := []string{
				"port " + strconv.Itoa(ports[0]), "bind 127.0.0.1", "dir " + f.path,
				fmt.Sprintf("sentinel monitor %s %s %s %d", name, host, port, sentinelQuorum),
				fmt.Sprintf("sentinel auth-pass %s %s", name, password),
				fmt.Sprintf("sentinel down-after-milliseconds %s %d", name, sentinelDown.Milliseconds()),
				fmt.Sprintf("sentinel failover-timeout %s 5000", name),
			}
			err := os.WriteFile(configuration, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
			return []command{{name: "redis-sentinel", path: program, args: []string{configuration, "--sentinel"}, env: environment(f.path)}}, err
		},
		probe: func(ctx context.Context, ports []int) error { // by the name, which no other knows
			return askSentinel(ctx, local(ports[0]), func(c *redis.SentinelClient) error { return c.GetMasterAddrByName(ctx, name).Err() })
		},
	})
	if err != nil {
		return nil, "", err
	}
	return server, local(ports[0]), nil
}

func askSentinel(ctx context.Context, address string, ask func(c *redis.SentinelClient) error) error {
	if err := reachable(ctx, address); err != nil {
		return err
	}
	client := redis.NewSentinelClient(&redis.Options{Addr: address, MaxRetries: -1, DialerRetries: 1, PoolSize: 1, ContextTimeoutEnabled: true})
	return errors.Join(ask(client), client.Close())
}

// complete waits until a Sentinel knows everybody.
func (s *RedisSentinel) complete(ctx context.Context, address string) error {
	ticker := time.NewTicker(2 * poll)
	defer ticker.Stop()
	for {
		var known map[string]string
		err := askSentinel(ctx, address, func(c *redis.SentinelClient) (err error) {
			known, err = c.Master(ctx, s.Name).Result()
			return err
		})
		if err == nil && known["num-slaves"] == strconv.Itoa(len(s.Nodes)-1) && known["num-other-sentinels"] == strconv.Itoa(len(s.Sentinels)-1) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("start Redis Sentinel: one knows %s replicas and %s others: %w", known["num-slaves"], known["num-other-sentinels"],
				errors.Join(ctx.Err(), err))
		}
	}
}

// Master is the node that is the master now, as the first Sentinel knows it that answers.
func (s *RedisSentinel) Master(ctx context.Context) (*RedisServer, error) {
	var failures []error
	for _, address := range s.watching {
		var at []string
		err := askSentinel(ctx, address, func(c *redis.SentinelClient) (err error) {
			at, err = c.GetMasterAddrByName(ctx, s.Name).Result()
			return err
		})
		if err != nil {
			failures = append(failures, err)
			continue
		}
		for _, node := range s.Nodes {
			if node.Addr == strings.Join(at, ":") {
				return node, nil
			}
		}
	}
	return nil, fmt.Errorf("ask the Sentinels for the master: %w", errors.Join(failures...))
}

// Close ends all of them at once and removes their folders.
func (s *RedisSentinel) Close() error {
	var failures []error
	for _, server := range s.servers() {
		failures = append(failures, server.Close())
	}
	return errors.Join(failures...)
}

// servers are the Sentinels, then the nodes: what is watched goes last.
func (s *RedisSentinel) servers() []*Server {
	list := append([]*Server{}, s.Sentinels...)
	for _, node := range s.Nodes {
		list = append(list, node.Server)
	}
	return list
}
