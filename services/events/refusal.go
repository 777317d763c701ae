package events

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
)

// The challenges of RFC 6750, for a request without a token and for one whose token nobody has.
const (
	challenge      = `Bearer realm="bannou"`
	challengeWrong = `Bearer realm="bannou", error="invalid_token"`
)

type holderKey struct{}

// identified is the context of a request with whose token it shows.
func (s *Service) identified(r *http.Request) context.Context {
	if s.cfg.Access == nil {
		return r.Context()
	}
	return context.WithValue(r.Context(), holderKey{}, s.cfg.Access.Holder(r.Header.Values("Authorization")))
}

// may refuses what the rule of a category does not grant; "" is the whole log, for which every rule has to.
func (s *Service) may(ctx context.Context, right guard.Right, category string) error {
	categories := []string{category}
	if category == "" {
		categories = s.cfg.Access.Names()
	}
	holder, _ := ctx.Value(holderKey{}).(guard.TokenHolder)
	for _, c := range categories {
		if !s.cfg.Access.Allows(holder, c, right) {
			return s.refuse(ctx, holder, right, c, category == "")
		}
	}
	return nil
}

// mayChange is may for the right to write to a category, of which the internal ones are nobody's to change.
func (s *Service) mayChange(ctx context.Context, category string) error {
	if s.internal(category) {
		return problem.New(problem.Forbidden, "category %q is changed by the service alone that keeps it, and not through the log", category)
	}
	return s.may(ctx, guard.Write, category)
}

// internal reports whether a category, or the stream that begins with one, is kept by a service of the node.
func (s *Service) internal(name string) bool {
	return slices.ContainsFunc(s.cfg.Internal, func(beginning string) bool { return strings.HasPrefix(name, beginning) })
}

func (s *Service) refuse(ctx context.Context, holder guard.TokenHolder, right guard.Right, category string, whole bool) error {
	what := fmt.Sprintf("category %q", category)
	if whole {
		what = fmt.Sprintf("the whole log, in which category %q is,", category)
	}
	switch {
	case holder.App != "":
		s.refusals.add(ctx, category, right, "forbidden")
		return problem.New(problem.Forbidden, "app %q may not %s %s; its rule under events.access says who may", holder.App, right, what)
	case holder.Claimed:
		s.refusals.add(ctx, category, right, "wrong_token")
		return problem.New(problem.Unauthorized, "the request's Authorization is not the token of any app here; send one as Authorization: Bearer").
			Challenge(challengeWrong)
	default:
		s.refusals.add(ctx, category, right, "no_token")
		return problem.New(problem.Unauthorized, "to %s %s takes the token of an app that may, as Authorization: Bearer", right, what).
			Challenge(challenge)
	}
}

// refusals counts requests that were refused.
type refusals struct{ counter metric.Int64Counter }

func newRefusals(provider metric.MeterProvider) (refusals, error) {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	counter, err := provider.Meter("github.com/bannou-mesh/bannou/services/events").Int64Counter("bannou.events.refusals",
		metric.WithUnit("{request}"), metric.WithDescription("Requests that the rules of categories refused, by category, operation (read, write) and reason."))
	if err != nil {
		return refusals{}, fmt.Errorf("events: metrics: %w", err)
	}
	return refusals{counter}, nil
}

func (r refusals) add(ctx context.Context, category string, operation guard.Right, reason string) {
	r.counter.Add(ctx, 1, metric.WithAttributes(attribute.String("category", category), attribute.String("operation", string(operation)),
		attribute.String("reason", reason)))
}
