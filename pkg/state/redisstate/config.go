package redisstate

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Config says how to reach Redis.
type Config struct {
	// URLs of the servers: redis://user:password@host:6379/0, or rediss:// for TLS. Required. User, password, database
	// and TLS are taken from the first. One URL is a single server; with MasterName they are Sentinels; with Cluster, or
	// when there are several without MasterName, they are nodes of a cluster to begin with.
	URLs []string

	// Cluster makes a single URL the first node of a cluster.
	Cluster bool

	// MasterName is the name by which Sentinels know the master.
	MasterName string

	// SentinelUsername and SentinelPassword are for the Sentinels; those of the URL are for the master.
	SentinelUsername string
	SentinelPassword string

	// AnyKeys lets Transact take any keys, which a single server can do and a cluster cannot: a program that relies on it does not move to one.
	AnyKeys bool

	// PoolSize is how many connections are kept to each server at most. Default: 10 per CPU.
	PoolSize int

	// DialTimeout bounds the making of a connection. Default: 2 s.
	DialTimeout time.Duration

	// Timeout bounds the wait for an answer, where the context's deadline is not earlier. Default: 3 s.
	Timeout time.Duration
}

// options translates the configuration. Errors never contain a URL: it may hold a password.
func (c Config) options() (*redis.UniversalOptions, error) {
	if len(c.URLs) == 0 {
		return nil, fmt.Errorf("redisstate: %w: no URL; give one such as redis://localhost:6379/0", state.ErrInvalid)
	}
	if c.AnyKeys && (c.Cluster || len(c.URLs) > 1 && c.MasterName == "") {
		return nil, fmt.Errorf("redisstate: %w: a cluster cannot change any keys at once", state.ErrInvalid)
	}
	if c.Cluster && c.MasterName != "" {
		return nil, fmt.Errorf("redisstate: %w: a cluster has no Sentinel master name", state.ErrInvalid)
	}
	var first *redis.Options
	addrs := make([]string, len(c.URLs))
	for i, raw := range c.URLs {
		o, err := parseURL(raw)
		if err != nil {
			return nil, fmt.Errorf("redisstate: %w: URL %d of %d: %w", state.ErrInvalid, i+1, len(c.URLs), err)
		}
		if i == 0 {
			first = o
		}
		addrs[i] = o.Addr
	}
	if first.DB != 0 && (c.Cluster || len(addrs) > 1 && c.MasterName == "") {
		return nil, fmt.Errorf("redisstate: %w: a Redis cluster has database 0 only, not %d", state.ErrInvalid, first.DB)
	}
	return &redis.UniversalOptions{
		Addrs: addrs, DB: first.DB, Username: first.Username, Password: first.Password, TLSConfig: first.TLSConfig,
		MasterName: c.MasterName, SentinelUsername: c.SentinelUsername, SentinelPassword: c.SentinelPassword,
		IsClusterMode: c.Cluster,

		Protocol:                 2, // nothing here needs 3, and older proxies do not have it
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},

		ContextTimeoutEnabled: true,
		DialTimeout:           orDefault(c.DialTimeout, 2*time.Second),
		DialerRetries:         1, // the caller decides whether to wait for a server
		ReadTimeout:           orDefault(c.Timeout, 3*time.Second),
		WriteTimeout:          orDefault(c.Timeout, 3*time.Second),
		PoolTimeout:           orDefault(c.Timeout, 3*time.Second),
		PoolSize:              c.PoolSize,
		PipelinePoolSize:      -1, // every call here is a pipeline: one pool for all
		MaxRetries:            1,  // of reads; see write
	}, nil
}

func parseURL(raw string) (*redis.Options, error) {
	if _, err := url.Parse(raw); err != nil {
		return nil, errors.New("it is not a URL; use redis://user:password@host:6379/0 and escape special characters")
	}
	return redis.ParseURL(raw)
}

func orDefault(d, byDefault time.Duration) time.Duration {
	if d <= 0 {
		return byDefault
	}
	return d
}
