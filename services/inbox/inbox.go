package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

const (
	patience  = 30 * time.Second      // how long a handler waits for its database
	pauseMin  = 50 * time.Millisecond // before the next attempt, doubling up to pauseMost
	pauseMost = time.Second
	postponed = 5 * time.Second // before an event comes again whose database is away longer
)

// Once is a handler for bus.Handle, bus.Subscribe and bus.Consume that calls h once for each event, by its id. What h changes in the transaction
// is made together with the mark, or not at all. An event that was handled already is acknowledged without calling h; while another process
// handles it, it is waited for. In memory there is no transaction, and tx is nil: see state.Inbox.
//
// Give each subscription an inbox of its own: its name is what has handled an event.
//
// h may be called again for one event where the database asks for that. While the database is away, the handler waits up to half a
// minute, so that events of one partition key stay in order, and then has the event delivered again later, without counting that as a failure. Other errors of h
// are the bus's, which retries and gives up as always; nothing is marked then.
func Once[E any](box state.Inbox, h func(ctx context.Context, tx *sql.Tx, e *E) error) func(ctx context.Context, e *E) error {
	return func(ctx context.Context, e *E) error {
		r, ok := bus.ReceivedFrom(ctx)
		if !ok {
			return bus.Permanent(errNoHandler)
		}
		return once(ctx, box, r.MessageID, func(tx *sql.Tx) error { return h(ctx, tx, e) })
	}
}

// OnceRaw is Once for bus.HandleRaw and bus.SubscribeRaw.
func OnceRaw(box state.Inbox, h func(ctx context.Context, tx *sql.Tx, r *bus.Received) error) func(ctx context.Context, r *bus.Received) error {
	return func(ctx context.Context, r *bus.Received) error {
		return once(ctx, box, r.MessageID, func(tx *sql.Tx) error { return h(ctx, tx, r) })
	}
}

var errNoHandler = errors.New("inbox: the context is not that of a bus's handler, so the event has no id to be told by")

// once handles a message, again and again while the database is away.
func once(ctx context.Context, box state.Inbox, id string, fn func(tx *sql.Tx) error) error {
	if err := state.CheckMessageID(id); err != nil {
		return bus.Permanent(fmt.Errorf("inbox: the event cannot be told from others: %w", err))
	}
	end := time.Now().Add(patience)
	for pause := pauseMin; ; pause = min(2*pause, pauseMost) {
		_, err := box.Handle(ctx, id, fn)
		if !errors.Is(err, state.ErrUnavailable) && !errors.Is(err, state.ErrOutcomeUnknown) || ctx.Err() != nil {
			return err
		}
		if time.Now().After(end) {
			return bus.RetryAfter(err, postponed)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}
