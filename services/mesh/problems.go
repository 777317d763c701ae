package mesh

import (
	"context"
	"errors"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/egress"
	"github.com/bannou-mesh/bannou/services/problem"
)

// meshProblem is an error of the mesh as callers see it. Problems stay as they are.
func meshProblem(err error) error {
	if _, ok := errors.AsType[*problem.Problem](err); ok {
		return err
	}
	if wrong, ok := errors.AsType[*mesh.InvalidError](err); ok {
		member, _, _ := strings.Cut(wrong.Member, " ")
		if wrong.Reason == "is missing" {
			return problem.Missing(member)
		}
		return problem.New(problem.InvalidMember, "member %s", wrong.Error()).At(member).Because(err)
	}
	switch {
	case errors.Is(err, mesh.ErrUnknownTarget):
		return problem.New(problem.UnknownTarget, "%s; POST /mesh/endpoints/list lists the app-ids, POST /mesh/mappings the services", err).Because(err)
	case errors.Is(err, mesh.ErrNoEndpoint):
		return problem.New(problem.NoEndpoint, "no instance takes requests now: %s", err).Because(err)
	case errors.Is(err, mesh.ErrNotFound):
		return problem.New(problem.NotFound, "the registry has no such thing: %s", err).Because(err)
	case errors.Is(err, mesh.ErrConflict):
		return problem.New(problem.Conflict, "nothing was changed: %s", err).Because(err)
	case errors.Is(err, mesh.ErrUnavailable):
		return problem.New(problem.Unavailable, "the registry is away; try again").Because(err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problem.New(problem.Timeout, "the registry did not answer in time; try again").Because(err)
	default:
		return err
	}
}

// proxyProblem is why a call was not passed through, or not answered.
func proxyProblem(err error) error {
	switch {
	case errors.Is(err, mesh.ErrTooManyHops):
		return problem.New(problem.LoopDetected, "the call goes in a circle: %s", err).Because(err)
	case errors.Is(err, mesh.ErrCircuitOpen):
		return problem.New(problem.CircuitOpen, "every instance fails, and no call is made for a moment: %s", err).Because(err)
	case errors.Is(err, mesh.ErrOverloaded):
		return problem.New(problem.Overloaded, "too many calls of this target are under way: %s", err).Because(err)
	case errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Timeout, "the instance did not answer in time").Because(err)
	case errors.Is(err, egress.ErrNotAllowed):
		return problem.New(problem.HostNotAllowed, "the instance is at an address that this node does not call; "+
			"have the operator allow its network").Because(err)
	}
	problemErr := meshProblem(err)
	if _, ok := errors.AsType[*problem.Problem](problemErr); ok {
		return problemErr
	}
	// The rest is what happened on the way; addresses are for the log.
	return problem.New(problem.BadGateway, "the instance could not be reached, or broke off").Because(err)
}

// checkHost refuses a host that this node may not call, so that nobody uses the mesh to reach elsewhere.
func (s *Service) checkHost(ctx context.Context, member, name string) error {
	if name == "" {
		return nil // the registry says whether it may be missing
	}
	switch err := s.cfg.Policy.CheckHost(ctx, name); {
	case err == nil:
		return nil
	case errors.Is(err, egress.ErrNotAllowed):
		return problem.New(problem.HostNotAllowed, "member %s is an address that this node does not call; use one on loopback, "+
			"or have the operator allow its network", member).At(member).Because(err)
	default:
		return problem.Invalid(member, "cannot be called: %s", err).Because(err)
	}
}
