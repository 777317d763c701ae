package mysqlstate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// awayFor is how long a replica that could not be read is left alone.
const awayFor = time.Second

// A replica is a server that follows the primary, and is only read.
type replica struct {
	db   *sql.DB
	away atomic.Int64 // until when it is left alone, in nanoseconds since 1970
}

func openReplica(cfg Config) (*replica, error) {
	if cfg.ReplicaDSN == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	c, err := newConnector(cfg.ReplicaDSN)
	if err != nil {
		return nil, fmt.Errorf("the replica: %w", err)
	}
	return &replica{db: openPool(c, cfg)}, nil
}

// An eventual engine reads from the replica and makes its changes on the primary.
type eventual struct {
	*engine
	copy    *engine
	replica *replica
}

var (
	_ state.Replicated = (*engine)(nil)
	_ state.Querier    = (*eventual)(nil)
)

// Eventual returns an engine that reads from the replica, where there is one.
func (e *engine) Eventual() state.Engine {
	if e.replica == nil {
		return e
	}
	return &eventual{engine: e, copy: &engine{table: e.table.copy, store: e.store}, replica: e.replica}
}

func (e *eventual) Get(ctx context.Context, keys []string) (records []state.Record, err error) {
	err = e.read(ctx, func(ctx context.Context, from *engine) (err error) {
		records, err = from.Get(ctx, keys)
		return err
	})
	return records, err
}

func (e *eventual) Exists(ctx context.Context, keys []string) (present []bool, err error) {
	err = e.read(ctx, func(ctx context.Context, from *engine) (err error) {
		present, err = from.Exists(ctx, keys)
		return err
	})
	return present, err
}

func (e *eventual) Len(ctx context.Context) (n int64, err error) {
	err = e.read(ctx, func(ctx context.Context, from *engine) (err error) {
		n, err = from.Len(ctx)
		return err
	})
	return n, err
}

func (e *eventual) Query(ctx context.Context, q state.Query) (records []state.Record, err error) {
	err = e.read(ctx, func(ctx context.Context, from *engine) (err error) {
		records, err = from.Query(ctx, q)
		return err
	})
	return records, err
}

func (e *eventual) Count(ctx context.Context, f state.Filter) (n int64, err error) {
	err = e.read(ctx, func(ctx context.Context, from *engine) (err error) {
		n, err = from.Count(ctx, f)
		return err
	})
	return n, err
}

// read asks the replica, and the primary when the replica is away. The replica has half of the time there is, so that
// one that hangs does not take all of it.
func (e *eventual) read(ctx context.Context, from func(context.Context, *engine) error) error {
	if time.Now().UnixNano() < e.replica.away.Load() {
		return from(ctx, e.engine)
	}
	half, cancel := ctx, context.CancelFunc(func() {})
	if deadline, bounded := ctx.Deadline(); bounded {
		half, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
	}
	err := from(half, e.copy)
	cancel()
	if err == nil || ctx.Err() != nil || !errors.Is(err, state.ErrUnavailable) {
		return err
	}
	e.replica.away.Store(time.Now().Add(awayFor).UnixNano())
	return from(ctx, e.engine)
}
