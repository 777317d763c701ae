package state

import (
	"context"
	"errors"
	"net/http"

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

type authorizationKey struct{}

// identified is the context of a request with what it says of its caller. It is looked at where a store has a rule.
func (s *Service) identified(r *http.Request) context.Context {
	values := r.Header.Values("Authorization")
	if s.cfg.Access == nil || len(values) == 0 {
		return r.Context()
	}
	return context.WithValue(r.Context(), authorizationKey{}, values)
}

// caller is who the request that ctx belongs to is from.
func (s *Service) caller(ctx context.Context) guard.TokenHolder {
	values, _ := ctx.Value(authorizationKey{}).([]string)
	return s.cfg.Access.Holder(values)
}

// checkAccess refuses what the rule of a store does not grant.
func (s *Service) checkAccess(ctx context.Context, store string, r guard.Right) error {
	if !s.cfg.Access.Guarded(store) {
		return nil
	}
	c := s.caller(ctx)
	if s.cfg.Access.Allows(c, store, r) {
		return nil
	}
	switch {
	case c.App != "":
		s.refusals.add(ctx, store, r, "forbidden")
		return problem.New(problem.Forbidden, "app %q may not %s store %q; its rule under state.stores says who may", c.App, r, store)
	case c.Claimed:
		s.refusals.add(ctx, store, r, "wrong_token")
		return wrongToken()
	default:
		s.refusals.add(ctx, store, r, "no_token")
		return problem.New(problem.Unauthorized, "to %s store %q takes the token of an app that may, as Authorization: Bearer", r, store).
			Challenge(challenge)
	}
}

func wrongToken() error {
	return problem.New(problem.Unauthorized, "the request's Authorization is not the token of any app here; send one as Authorization: Bearer").
		Challenge(challengeWrong)
}

// refusals counts requests that were refused.
type refusals struct{ counter metric.Int64Counter }

func newRefusals(provider metric.MeterProvider) (refusals, error) {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	counter, err := provider.Meter("github.com/bannou-mesh/bannou/services/state").Int64Counter("bannou.state.refusals",
		metric.WithUnit("{request}"), metric.WithDescription("Requests that the rules of stores refused, by store, operation (read, write, list) and reason."))
	if err != nil {
		return refusals{}, errors.Join(errors.New("state: metrics"), err)
	}
	return refusals{counter}, nil
}

// add counts one; no store: all of them were asked for.
func (r refusals) add(ctx context.Context, store string, operation guard.Right, reason string) {
	r.counter.Add(ctx, 1, metric.WithAttributes(attribute.String("store", store), attribute.String("operation", string(operation)),
		attribute.String("reason", reason)))
}
