package redisbus

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// The sender may come to an op before its caller has noticed that its context has ended. What the caller is told does not
// depend on who is first: an op that an earlier attempt may have executed is not confirmed, another was not sent.
func TestOpThatTheSenderFindsLate(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer func() { _ = client.Close() }()
	p := &pipe{client: client, cfg: Config{Logger: slog.New(slog.DiscardHandler)}, ended: make(chan struct{})}
	p.abort, p.cut = context.WithCancel(t.Context())
	defer p.cut()
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	<-ctx.Done()
	for doubt, want := range map[bool]error{false: bus.ErrUnavailable, true: bus.ErrNotConfirmed} {
		o := &op{ctx: ctx, done: make(chan struct{}), doubt: doubt, add: func(redis.Pipeliner) []redis.Cmder { return nil }}
		if doubt {
			o.state.Store(opSent)
		}
		left, err := p.send([]*op{o})
		require.NoError(t, err)
		require.Empty(t, left)
		err = p.wait(o)
		require.ErrorIs(t, err, want, "doubt: %v", doubt)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
}
