package redisstate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A classifier says what an error of go-redis means for the caller.
type classifier struct {
	cluster bool
}

// read classifies the error of a command that changes nothing.
func (c classifier) read(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	return c.classify(ctx, err, state.ErrUnavailable)
}

// write classifies the error of a command that was to change something.
func (c classifier) write(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	return c.classify(ctx, err, state.ErrOutcomeUnknown)
}

// classify uses lost for a failure after which the command may have been carried out.
func (c classifier) classify(ctx context.Context, err, lost error) error {
	kind := lost
	var answer redis.Error
	switch {
	case errors.Is(err, state.ErrCorrupt):
		return err
	case errors.As(err, &answer):
		kind = answered(answer)
	case c.notSent(err):
		if errors.Is(context.Cause(ctx), context.Canceled) {
			return context.Cause(ctx)
		}
		kind = state.ErrUnavailable
	}
	if cause := ended(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w: %w", kind, cause, err)
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// ended returns why the context has ended, or nil. A connection's deadline, which is the context's, may pass a moment
// before the context notices.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// answered classifies a refusal of the server. Nothing has been changed.
func answered(err redis.Error) error {
	switch {
	case redis.HasErrorPrefix(err, "WRONGTYPE"):
		return state.ErrCorrupt
	case redis.HasErrorPrefix(err, "CROSSSLOT"):
		return state.ErrUnsupported
	default: // LOADING, READONLY, OOM, CLUSTERDOWN, NOAUTH ...
		return state.ErrUnavailable
	}
}

// notSent reports whether the error came up before the command was written to a connection.
func (c classifier) notSent(err error) bool {
	var dial *dialError
	var network *net.OpError
	switch {
	case errors.As(err, &dial), errors.Is(err, redis.ErrClosed), errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted):
		return true
	case errors.As(err, &network):
		return network.Op == "dial"
	default:
		// The context ended while waiting for a connection. In a cluster it may also have been between a first attempt
		// and one that a redirect asked for, when other commands of the same pipeline have been carried out.
		return !c.cluster && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled))
	}
}
