package state

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/problem"
)

// stateProblem is an error of the state layer as callers see it. Problems stay as they are.
func stateProblem(err error) error {
	if _, ok := errors.AsType[*problem.Problem](err); ok {
		return err
	}
	switch {
	case errors.Is(err, state.ErrConflict):
		return conflict(err)
	case errors.Is(err, state.ErrTooLarge):
		return problem.New(problem.ValueTooLarge, "member value is larger than the %d bytes that a store keeps under one key",
			state.MaxValueBytes).At("value").Because(err)
	case errors.Is(err, state.ErrUnsupported):
		return problem.New(problem.Unsupported, "the store cannot do this: %s", reason(err, state.ErrUnsupported)).
			At("storeName").Because(err)
	case errors.Is(err, state.ErrOutcomeUnknown):
		return problem.New(problem.OutcomeUnknown, "the store did not answer in time: the write may or may not have been "+
			"made; read the key before you write it again").Because(err)
	case errors.Is(err, state.ErrFull):
		return problem.New(problem.Unavailable, "the store announces its changes, and the outbox in which their events wait for the "+
			"broker is full: nothing was changed; try again").Because(err)
	case errors.Is(err, state.ErrNoSpace):
		return problem.New(problem.Unavailable, "the disk of the store is full: nothing was changed; make room on it, then try again").Because(err)
	case errors.Is(err, state.ErrUnavailable):
		return problem.New(problem.Unavailable, "the backend of the store is away and nothing was changed; try again").Because(err)
	case errors.Is(err, state.ErrCorrupt):
		return problem.New(problem.Internal, "what is stored was damaged by someone else: %s; delete the key, or put back what belongs there", err).Because(err)
	case errors.Is(err, state.ErrInvalid):
		return problem.New(problem.InvalidMember, "the store refuses this: %s", reason(err, state.ErrInvalid)).Because(err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problem.New(problem.Timeout, "the store was not asked in time; try again").Because(err)
	default:
		return err
	}
}

func conflict(err error) error {
	p := problem.New(problem.Conflict, "the key is not as the etag says: it was changed, removed or, for an empty etag, "+
		"exists; read it again, then decide").Because(err)
	if several, ok := errors.AsType[*state.ConflictError](err); ok {
		p.Detail = fmt.Sprintf("nothing was changed: %d of the keys are not as their etags say; read them again, then decide",
			len(several.Keys))
		p.Keys = several.Keys
	}
	return p
}

// reason is what an error says after its sentinel's own words.
func reason(err, sentinel error) string {
	if _, rest, found := strings.Cut(err.Error(), sentinel.Error()+": "); found {
		return rest
	}
	return err.Error()
}

// filterProblem is what is wrong with a filter or a sort.
func filterProblem(err error) error {
	wrong, ok := errors.AsType[*state.FilterError](err)
	if !ok {
		return err
	}
	member := "filter"
	if wrong.Path != "" {
		member += "." + wrong.Path
	}
	if wrong.Operator != "" && !known(state.Operator(wrong.Operator)) {
		return problem.New(problem.UnknownOperator, "member %s: %s", member, sentence(wrong)).At(member).Because(err)
	}
	return problem.New(problem.InvalidMember, "member %s: %s", member, sentence(wrong)).At(member).Because(err)
}

func sentence(e *state.FilterError) string {
	if e.Operator != "" {
		return fmt.Sprintf("operator %.64q %s", e.Operator, e.Reason)
	}
	return e.Reason
}
