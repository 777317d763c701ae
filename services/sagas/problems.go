package sagas

import (
	"context"
	"errors"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/sagas"
	"github.com/bannou-mesh/bannou/services/problem"
)

// sagaProblem is an error of the engine as callers see it.
func sagaProblem(err error) error {
	switch {
	case errors.Is(err, sagas.ErrUnknownSaga), errors.Is(err, sagas.ErrUnknownVersion):
		return problem.New(problem.NotFound, "member saga: %s", err).At("saga").Because(err)
	case errors.Is(err, sagas.ErrNoInstance):
		return problem.New(problem.NotFound, "member key: %s", err).At("key").Because(err)
	case errors.Is(err, sagas.ErrNotNow):
		return problem.New(problem.Conflict, "%s", err).At("key").Because(err)
	case errors.Is(err, state.ErrInvalid):
		return problem.New(problem.InvalidMember, "member key: %s", err).At("key").Because(err)
	case errors.Is(err, state.ErrOutcomeUnknown):
		return problem.New(problem.OutcomeUnknown, "the database of the sagas did not say whether it was done; get the instance again").Because(err)
	case errors.Is(err, state.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Unavailable, "the database of the sagas is away; try again").Because(err)
	default:
		return err
	}
}
