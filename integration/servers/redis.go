package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisURL is the environment variable that names a Redis for shared use.
const RedisURL = "BANNOU_TEST_REDIS_URL"

func redisProduct() product {
	return product{name: "Redis", debian: "redis-server", fedora: "redis", homebrew: "redis", variable: RedisURL}
}

// redisDatabases is how many databases ours has; each test with a shared server takes one while it runs.
const redisDatabases = 1024

// RedisServer is a Redis server, or one of its databases.
type RedisServer struct {
	*Server

	// URL is redis://user:password@host:port/database. Ours have a password and no user.
	URL string
	// Addr is host:port.
	Addr string
	// DB is the number of the database; 0 for a private server.
	DB int
}

// RedisOptions configures a Redis. The zero value keeps every write that was acknowledged, also over a Kill.
type RedisOptions struct {
	// Volatile keeps nothing on disk: after a restart the server is empty. By default it has an append-only file.
	Volatile bool
	// Fsync says when the append-only file is flushed: "always" before each answer, "everysec", or "no". Default "always", since with the others
	// Redis may answer before it writes while a flush is going on. Measurements should name what an operator would use, mostly "everysec".
	Fsync string
	// Args are added to the command line, each option in two strings: "--maxmemory", "64mb".
	Args []string
}

// StartRedis starts a Redis of its own, which the caller has to Close. It returns when the server answers PING, or with an error that shows the
// end of its log. An error is ErrMissing when redis-server is not installed.
func StartRedis(ctx context.Context, o RedisOptions) (*RedisServer, error) {
	return startRedis(ctx, o, token())
}

// startRedis starts a Redis with a password, which those that replicate one another share.
func startRedis(ctx context.Context, o RedisOptions, password string) (*RedisServer, error) {
	program, err := redisProgram()
	if err != nil {
		return nil, err
	}
	server, ports, err := launch(ctx, plan{
		product: redisProduct(),
		ports:   1,
		prepare: func(_ context.Context, f *folder, ports []int) ([]command, error) {
			return []command{{name: "redis-server", path: program, args: o.args(f, ports[0], password), env: environment(f.path)}}, nil
		},
		probe: func(ctx context.Context, ports []int) error {
			return pingRedis(ctx, &redis.Options{Addr: local(ports[0]), Password: password})
		},
	})
	if err != nil {
		return nil, err
	}
	return redisAt(server, &redis.Options{Addr: local(ports[0]), Password: password}), nil
}

func redisProgram() (string, error) {
	program, found := executable([]string{"redis-server"}, []string{"/usr/bin/redis-server", "/usr/local/bin/redis-server", "/opt/homebrew/bin/redis-server"}, nil)
	if !found {
		return "", redisProduct().missing("redis-server")
	}
	return program, nil
}

func (o RedisOptions) args(f *folder, port int, password string) []string {
	args := []string{
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--requirepass", password, "--dir", f.path, "--daemonize", "no",
		"--databases", strconv.Itoa(redisDatabases), "--save", "",
	}
	if !o.Volatile {
		fsync := o.Fsync
		if fsync == "" {
			fsync = "always"
		}
		args = append(args, "--appendonly", "yes", "--appendfsync", fsync)
	}
	return append(args, o.Args...)
}

// externalRedis returns the Redis that the environment names, if it does.
func externalRedis() (*RedisServer, bool, error) {
	address := os.Getenv(RedisURL)
	if address == "" {
		return nil, false, nil
	}
	options, err := redis.ParseURL(address)
	if err != nil {
		return nil, true, fmt.Errorf("%s is not the URL of a Redis: want redis://user:password@host:6379", RedisURL) // without err, which quotes the password
	}
	server := &Server{name: redisProduct().name, refusal: ErrExternal, probe: func(ctx context.Context) error { return pingRedis(ctx, options) }}
	return redisAt(server, options), true, nil
}

func redisAt(server *Server, o *redis.Options) *RedisServer {
	scheme, user := "redis", ""
	if o.TLSConfig != nil {
		scheme = "rediss"
	}
	if o.Username != "" || o.Password != "" {
		user = userinfo(o.Username, o.Password)
	}
	return &RedisServer{Server: server, Addr: o.Addr, DB: o.DB, URL: fmt.Sprintf("%s://%s%s/%d", scheme, user, o.Addr, o.DB)}
}

func pingRedis(ctx context.Context, o *redis.Options) error {
	// The client logs a refused connection, which a server that is starting gives many times.
	if err := reachable(ctx, o.Addr); err != nil {
		return err
	}
	client := redisClient(o)
	return errors.Join(client.Ping(ctx).Err(), client.Close())
}

// redisClient returns a client that tries once and keeps to the context's deadline.
func redisClient(o *redis.Options) *redis.Client {
	once := *o
	once.MaxRetries = -1
	once.DialerRetries = 1
	once.PoolSize = 1
	once.DialTimeout = probeTimeout
	once.ContextTimeoutEnabled = true
	return redis.NewClient(&once)
}

// claimTimeout frees the database of a test that was killed, on a Redis that outlives it.
const claimTimeout = time.Hour

func claimKey(db int) string { return "bannou-test:database:" + strconv.Itoa(db) }

// database claims an empty database of the server for one test; release empties it and gives it back. A claim is a key in database 0, so that
// test binaries that share a server do not meet.
func (r *RedisServer) database(ctx context.Context) (part *RedisServer, release func(context.Context) error, err error) {
	options, err := redis.ParseURL(r.URL)
	if err != nil {
		return nil, nil, fmt.Errorf("address of %s: %w", r.name, err)
	}
	options.DB = 0
	claims := redisClient(options)
	defer func() { err = errors.Join(err, claims.Close()) }()
	count, err := redisDatabaseCount(ctx, claims)
	if err != nil {
		return nil, nil, err
	}
	for db := 1; db < count; db++ {
		claimed, err := claims.SetNX(ctx, claimKey(db), os.Getpid(), claimTimeout).Result()
		if err != nil {
			return nil, nil, fmt.Errorf("claim a database of %s: %w", r.name, err)
		}
		if !claimed {
			continue
		}
		options.DB = db
		empty, err := redisEmpty(ctx, options)
		if err != nil {
			return nil, nil, fmt.Errorf("look into database %d of %s: %w", db, r.name, err)
		}
		if !empty { // somebody's keys
			if err := claims.Del(ctx, claimKey(db)).Err(); err != nil {
				return nil, nil, fmt.Errorf("give back database %d of %s: %w", db, r.name, err)
			}
			continue
		}
		own := *options
		return redisAt(r.part(func(ctx context.Context) error { return pingRedis(ctx, &own) }), &own), func(ctx context.Context) error { return releaseRedis(ctx, &own) }, nil
	}
	return nil, nil, fmt.Errorf("%s has no free, empty database among its %d: raise 'databases' in its configuration or empty one with FLUSHDB", r.name, count)
}

func redisDatabaseCount(ctx context.Context, client *redis.Client) (int, error) {
	config, err := client.ConfigGet(ctx, "databases").Result()
	if err != nil {
		return 16, nil //nolint:nilerr // a hosted Redis may forbid CONFIG; 16 is what Redis has by default
	}
	count, err := strconv.Atoi(config["databases"])
	if err != nil {
		return 0, fmt.Errorf("number of databases of Redis: %w", err)
	}
	return count, nil
}

func redisEmpty(ctx context.Context, o *redis.Options) (bool, error) {
	client := redisClient(o)
	size, err := client.DBSize(ctx).Result()
	return size == 0, errors.Join(err, client.Close())
}

func releaseRedis(ctx context.Context, o *redis.Options) error {
	own := redisClient(o)
	err := errors.Join(own.FlushDB(ctx).Err(), own.Close())
	first := *o
	first.DB = 0
	claims := redisClient(&first)
	return errors.Join(err, claims.Del(ctx, claimKey(o.DB)).Err(), claims.Close())
}
