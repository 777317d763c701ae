package migrate

import (
	"context"
	"errors"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// An eventual engine reads the side that decides like all others, and while that cannot be reached, the side that changes are carried to:
// it has all of them but the last. Changes are made where the decision is, or not at all.
type eventual struct{ *engine }

// A queryableEventual is one of which at least one place evaluates queries.
type queryableEventual struct {
	eventual
	queries queryable
}

var (
	_ state.Replicated = (*engine)(nil)
	_ state.Replicated = queryable{}
	_ state.Querier    = queryableEventual{}
)

// Eventual implements state.Replicated.
func (e *engine) Eventual() state.Engine { return eventual{e} }

// Eventual implements state.Replicated.
func (e queryable) Eventual() state.Engine { return queryableEventual{eventual(e), e} }

// Get implements state.Engine.
func (e eventual) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	return fallBack(ctx, e.engine, func(ctx context.Context, side state.Scanner) ([]state.Record, error) { return side.Get(ctx, keys) })
}

// Exists implements state.Engine.
func (e eventual) Exists(ctx context.Context, keys []string) ([]bool, error) {
	return fallBack(ctx, e.engine, func(ctx context.Context, side state.Scanner) ([]bool, error) { return side.Exists(ctx, keys) })
}

// Len implements state.Engine.
func (e eventual) Len(ctx context.Context) (int64, error) {
	return fallBack(ctx, e.engine, func(ctx context.Context, side state.Scanner) (int64, error) { return side.Len(ctx) })
}

// Query implements state.Querier.
func (e queryableEventual) Query(ctx context.Context, q state.Query) ([]state.Record, error) {
	return fallBack(ctx, e.engine, func(ctx context.Context, side state.Scanner) ([]state.Record, error) {
		querier, err := e.queries.querier(side)
		if err != nil {
			return nil, err
		}
		return querier.Query(ctx, q)
	})
}

// Count implements state.Querier.
func (e queryableEventual) Count(ctx context.Context, f state.Filter) (int64, error) {
	return fallBack(ctx, e.engine, func(ctx context.Context, side state.Scanner) (int64, error) {
		querier, err := e.queries.querier(side)
		if err != nil {
			return 0, err
		}
		return querier.Count(ctx, f)
	})
}

// fallBack asks the side that decides, which has half of the time there is, and then the other one, if that has what was written.
func fallBack[T any](ctx context.Context, e *engine, ask func(ctx context.Context, side state.Scanner) (T, error)) (T, error) {
	half, cancel := ctx, context.CancelFunc(func() {})
	if deadline, bounded := ctx.Deadline(); bounded {
		half, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
	}
	answer, err := read(half, e, func(decides state.Scanner) (T, error) { return ask(half, decides) })
	cancel()
	if err == nil || ctx.Err() != nil || !errors.Is(err, state.ErrUnavailable) {
		return answer, err
	}
	v := e.guard.view.Load()
	if v == nil || !v.Phase.carries() {
		return answer, err
	}
	if carried, otherErr := ask(ctx, v.other().engine); otherErr == nil {
		return carried, nil
	}
	return answer, err
}
