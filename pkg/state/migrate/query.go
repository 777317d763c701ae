package migrate

import (
	"context"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A queryable is an engine of which at least one place evaluates queries. They work while that one decides.
type queryable struct{ *engine }

var (
	_ state.Querier = queryable{}
	_ state.Indexer = queryable{}
)

// Query implements state.Querier.
func (e queryable) Query(ctx context.Context, q state.Query) ([]state.Record, error) {
	return read(ctx, e.engine, func(decides state.Scanner) ([]state.Record, error) {
		querier, err := e.querier(decides)
		if err != nil {
			return nil, err
		}
		return querier.Query(ctx, q)
	})
}

// Count implements state.Querier.
func (e queryable) Count(ctx context.Context, f state.Filter) (int64, error) {
	return read(ctx, e.engine, func(decides state.Scanner) (int64, error) {
		querier, err := e.querier(decides)
		if err != nil {
			return 0, err
		}
		return querier.Count(ctx, f)
	})
}

func (e queryable) querier(decides state.Engine) (state.Querier, error) {
	querier, ok := decides.(state.Querier)
	if !ok {
		return nil, e.error(fmt.Errorf("%w: the place that keeps the store now cannot query", state.ErrUnsupported))
	}
	return querier, nil
}

// Indexed implements state.Indexer, for the place that decides. It tells none when that cannot be found out at once.
func (e queryable) Indexed() []string {
	ctx, cancel := context.WithTimeout(context.Background(), Lease)
	defer cancel()
	v, err := e.guard.enter(ctx, false)
	if err != nil {
		return nil
	}
	if indexer, ok := v.decides().engine.(state.Indexer); ok {
		return indexer.Indexed()
	}
	return nil
}
