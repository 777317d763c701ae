package messaging

import (
	"context"
	"errors"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/egress"
	"github.com/bannou-mesh/bannou/services/problem"
)

// busProblem is an error of the bus as callers see it. member is what to blame for input that no broker would take.
func busProblem(err error, member string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bus.ErrUnroutable):
		return problem.New(problem.Unroutable, "the event was mandatory, and no queue would receive it; subscribe first").Because(err)
	case errors.Is(err, bus.ErrNotConfirmed):
		return problem.New(problem.OutcomeUnknown, "the broker did not confirm the event in time: it may or may not have "+
			"arrived; publish it again with the same eventId if handlers tell duplicates by it").Because(err)
	case errors.Is(err, bus.ErrUnavailable), errors.Is(err, bus.ErrClosed), errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Unavailable, "the broker is away and nothing was sent; try again").Because(err)
	case errors.Is(err, bus.ErrDuplicateHandler):
		return problem.New(problem.Conflict, "this node has a subscription of that group on the topic already; remove it first").
			At("options.group").Because(err)
	case errors.Is(err, bus.ErrInvalid):
		return problem.New(problem.InvalidMember, "member %s is not usable: %s", member, reason(err)).At(member).Because(err)
	default:
		return err
	}
}

// publishProblem is why an event was neither published nor kept.
func publishProblem(err error) error {
	switch {
	case errors.Is(err, bus.ErrNotConfirmed), errors.Is(err, bus.ErrInvalid):
		return busProblem(err, "payload")
	case errors.Is(err, state.ErrFull):
		return problem.New(problem.Unavailable, "the broker is away or behind, and the outbox is full: nothing was kept; try again").Because(err)
	case errors.Is(err, state.ErrNoSpace):
		return problem.New(problem.Unavailable, "the broker is away or behind, and the disk of the outbox is full: nothing was kept; make room "+
			"on it, or try again when the broker is back").Because(err)
	case errors.Is(err, state.ErrOutcomeUnknown):
		return problem.New(problem.OutcomeUnknown, "the broker is away, and the database of the outbox did not say whether it keeps "+
			"the event; publish it again with the same eventId if handlers tell duplicates by it").Because(err)
	case errors.Is(err, state.ErrUnavailable):
		return problem.New(problem.Unavailable, "the broker is away, and so is the database of the outbox: nothing was kept; try again").Because(err)
	default:
		return busProblem(err, "payload")
	}
}

// reason is what an ErrInvalid says after the sentinel's own word.
func reason(err error) string {
	text := err.Error()
	if _, rest, found := strings.Cut(text, bus.ErrInvalid.Error()+": "); found {
		return rest
	}
	return text
}

// callbackProblem is why a callback is refused.
func callbackProblem(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, egress.ErrNotAllowed):
		return problem.New(problem.CallbackNotAllowed, "member callbackUrl leads to an address that this node does not call; "+
			"use one on loopback, or have the operator allow its network").At("callbackUrl").Because(err)
	case errors.Is(err, egress.ErrURL), errors.Is(err, egress.ErrUnresolved):
		return problem.Invalid("callbackUrl", "cannot be called: %s", err).Because(err)
	default:
		return err
	}
}

// storeProblem is an error of the store of durable subscriptions.
func storeProblem(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, state.ErrUnavailable), errors.Is(err, state.ErrOutcomeUnknown), errors.Is(err, state.ErrConflict),
		errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Unavailable, "the store of durable subscriptions is away; try again").Because(err)
	default:
		return err
	}
}
