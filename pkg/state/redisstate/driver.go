package redisstate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/daprrows"
)

// Driver keeps stores in Redis. It is safe for concurrent use.
type Driver struct {
	client redis.UniversalClient
	lines  *lines
	script string // the hash by which Redis names apply.lua

	anyKeys bool // Transact takes keys without a common hash tag

	closeOnce sync.Once
	closeErr  error
}

var _ state.Driver = (*Driver)(nil)

// New returns a driver. It does not connect: a server that is away shows in Ready and in the first operation.
func New(cfg Config) (*Driver, error) {
	options, err := cfg.options()
	if err != nil {
		return nil, err
	}
	client := redis.NewUniversalClient(options)
	d := &Driver{client: client, lines: newLines(client, options.ReadTimeout), script: redis.NewScript(applySource).Hash(), anyKeys: cfg.AnyKeys}
	if cluster, ok := client.(*redis.ClusterClient); ok {
		cluster.OnNewNode(func(node *redis.Client) { node.AddHook(dialMarker{}) })
	} else {
		client.AddHook(dialMarker{})
	}
	return d, nil
}

// Backend returns "redis".
func (d *Driver) Backend() string { return "redis" }

// Open returns the store with the configured prefix. It does not wait for the server.
func (d *Driver) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &engine{
		lines: d.lines, store: cfg.Name, prefix: prefixOf(cfg.KeyPrefix), script: d.script, anyKeys: d.anyKeys, dapr: isDaprs(cfg.KeyPrefix),
	}, nil
}

// prefixOf is what the store's keys begin with. Dapr's separator stands for itself: with the prefix "shop||" the rows are those of its app shop.
func prefixOf(keyPrefix string) string {
	if isDaprs(keyPrefix) {
		return keyPrefix
	}
	return keyPrefix + ":"
}

func isDaprs(keyPrefix string) bool { return strings.HasSuffix(keyPrefix, daprrows.Separator) }

// Ready asks the server whether it answers.
func (d *Driver) Ready(ctx context.Context) error {
	return readError(ctx, d.client.Ping(ctx).Err())
}

// Close closes the connections and ends what waits for them.
func (d *Driver) Close() error {
	d.closeOnce.Do(func() {
		if err := d.client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
			d.closeErr = fmt.Errorf("redisstate: %w", err)
		}
		d.lines.close()
	})
	return d.closeErr
}

// dialMarker marks the errors of making a connection, which tell that a command was not sent.
type dialMarker struct{}

// DialHook implements redis.Hook.
func (dialMarker) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if err != nil {
			return nil, &dialError{err}
		}
		return conn, nil
	}
}

// ProcessHook implements redis.Hook.
func (dialMarker) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (dialMarker) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }
