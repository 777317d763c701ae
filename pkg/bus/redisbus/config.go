package redisbus

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Config is where Redis is and how the driver uses it. Only URLs is required.
type Config struct {
	// URLs of the servers: redis://user:password@host:6379/0, or rediss:// for TLS. One is a single server; with
	// MasterName they are Sentinels, and user, password, database and TLS of the first are the master's.
	URLs []string
	// MasterName is the name by which Sentinels know the master.
	MasterName string

	// Exchange is where messages go that name none: each topic of it is a stream of the topic's name. Default "bannou".
	Exchange string
	// DeadLetterExchange is where expired and undecodable messages go. What is sent there is kept in the stream of its
	// name and "-store" too. Default "bannou-dlx".
	DeadLetterExchange string

	// WaitReplicas is how many replicas must have a message before its publisher is told that it is there. 0 asks none, and
	// then a failover, of which Redis knows no other than one that loses what was not replicated yet, can lose what was
	// confirmed. With as many as there are it loses nothing. With fewer it may: Sentinel chooses the replica that had the most when it
	// asked last, which may be ten seconds ago. While there are fewer replicas, publishers wait until their deadlines. Default 0.
	WaitReplicas int

	// ClaimIdle is how long a delivery in work may be without a sign of life from its process before another takes it
	// over. A process gives one every third of it. Default 30 s.
	ClaimIdle time.Duration
	// Grace is how long an entry stays in its stream at least, so that subscriptions without a group, which nothing
	// records, can read it. What they miss all the same is counted and logged. Default 1 min.
	Grace time.Duration
	// Upkeep is how often streams are trimmed, positions recorded and what expired is looked for. Default 5 s.
	Upkeep time.Duration

	// MaxDeadLetters is how many dead letters are kept; the oldest go first, counted and logged. Default 100 000.
	MaxDeadLetters int64
	// MaxDeadLetterAge is how long they are kept. Default 7 days.
	MaxDeadLetterAge time.Duration
	// MaxMessageBytes bounds a body. Default 16 MiB.
	MaxMessageBytes int

	// RetryDelay is the first pause after a failure to reach Redis; it doubles up to MaxRetryDelay. Default 50 ms.
	RetryDelay time.Duration
	// MaxRetryDelay bounds the pause. Default 2 s.
	MaxRetryDelay time.Duration

	// Logger is told of what was dropped, claimed, made anew, or could not be reached. Default: nothing is logged.
	Logger *slog.Logger
	// MeterProvider receives the metric bannou.redisbus.dropped. Default: none is kept.
	MeterProvider metric.MeterProvider
}

func (c Config) withDefaults() Config {
	c.Exchange = cmp.Or(c.Exchange, "bannou")
	c.DeadLetterExchange = cmp.Or(c.DeadLetterExchange, "bannou-dlx")
	c.ClaimIdle = cmp.Or(max(0, c.ClaimIdle), 30*time.Second)
	c.Grace = cmp.Or(max(0, c.Grace), time.Minute)
	c.Upkeep = cmp.Or(max(0, c.Upkeep), 5*time.Second)
	c.MaxDeadLetters = cmp.Or(max(0, c.MaxDeadLetters), 100_000)
	c.MaxDeadLetterAge = cmp.Or(max(0, c.MaxDeadLetterAge), 7*24*time.Hour)
	c.MaxMessageBytes = cmp.Or(max(0, c.MaxMessageBytes), 16<<20)
	c.RetryDelay = cmp.Or(max(0, c.RetryDelay), 50*time.Millisecond)
	c.MaxRetryDelay = max(cmp.Or(c.MaxRetryDelay, 2*time.Second), c.RetryDelay)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MeterProvider == nil {
		c.MeterProvider = noop.NewMeterProvider()
	}
	return c
}

// answerTimeout bounds the wait for an answer of Redis, where nothing else does.
const answerTimeout = 5 * time.Second

// options translates the configuration. Errors never contain a URL: it may hold a password.
func (c Config) options() (*redis.UniversalOptions, error) {
	if len(c.URLs) == 0 {
		return nil, fmt.Errorf("%w: no Redis URL is given; name one, such as redis://user:password@host:6379/0", bus.ErrInvalid)
	}
	if len(c.URLs) > 1 && c.MasterName == "" {
		return nil, fmt.Errorf("%w: several Redis URLs are Sentinels and need their master's name; a Redis Cluster is not supported", bus.ErrInvalid)
	}
	if c.WaitReplicas < 0 {
		return nil, fmt.Errorf("%w: %d replicas cannot be waited for; 0 waits for none", bus.ErrInvalid, c.WaitReplicas)
	}
	if c.Exchange == c.DeadLetterExchange {
		return nil, fmt.Errorf("%w: the exchange and the dead-letter exchange are both %q; they must differ", bus.ErrInvalid, c.Exchange)
	}
	var first *redis.Options
	addrs := make([]string, len(c.URLs))
	for i, raw := range c.URLs {
		o, err := parseURL(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: Redis URL %d of %d: %w", bus.ErrInvalid, i+1, len(c.URLs), err)
		}
		if i == 0 {
			first = o
		}
		addrs[i] = o.Addr
	}
	return &redis.UniversalOptions{
		Addrs: addrs, DB: first.DB, Username: first.Username, Password: first.Password, TLSConfig: first.TLSConfig, MasterName: c.MasterName,
		Protocol:                 2, // nothing here needs 3
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		ContextTimeoutEnabled:    true,
		DialTimeout:              2 * time.Second,
		DialerRetries:            1,
		ReadTimeout:              answerTimeout,
		WriteTimeout:             answerTimeout,
		PoolTimeout:              answerTimeout,
		PipelinePoolSize:         -1,
		MaxRetries:               -1, // what was sent twice would be there twice: who calls decides
	}, nil
}

func parseURL(raw string) (*redis.Options, error) {
	if _, err := url.Parse(raw); err != nil {
		return nil, errors.New("it is not a URL; use redis://user:password@host:6379/0 and escape special characters")
	}
	o, err := redis.ParseURL(raw)
	if err != nil {
		return nil, errors.New("it is not a Redis URL; use redis://user:password@host:6379/0, or rediss:// for TLS")
	}
	return o, nil
}

// connect makes a pool of at most so many connections.
func connect(o *redis.UniversalOptions, size int) *redis.Client {
	own := *o
	own.PoolSize = size
	if own.MasterName != "" {
		return redis.NewFailoverClient(own.Failover())
	}
	return redis.NewClient(own.Simple())
}
