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

// readError says what an error of go-redis means for the caller of a command that changes nothing.
func readError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	return classify(ctx, err, false)
}

// writeError says the same of a command that was to change something; sent: it has been written to a connection.
func writeError(ctx context.Context, err error, sent bool) error {
	if err == nil {
		return nil
	}
	return classify(ctx, err, sent && !notSent(err))
}

func classify(ctx context.Context, err error, doubt bool) error {
	kind := state.ErrUnavailable
	var answer redis.Error
	switch {
	case errors.Is(err, state.ErrCorrupt):
		return err
	case errors.As(err, &answer):
		kind = answered(answer)
	case doubt:
		kind = state.ErrOutcomeUnknown
	case errors.Is(context.Cause(ctx), context.Canceled):
		return context.Cause(ctx)
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

// unanswered reports an error that is not the server's.
func unanswered(err error) bool {
	var answer redis.Error
	return err != nil && !errors.As(err, &answer)
}

// notSent reports an error that comes up before a command is written. Where it follows an earlier attempt, that one was
// refused (a cluster's MOVED): go-redis makes a second attempt of no other write.
func notSent(err error) bool {
	var dial *dialError
	var network *net.OpError
	return errors.As(err, &dial) || errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted) ||
		errors.As(err, &network) && network.Op == "dial"
}
