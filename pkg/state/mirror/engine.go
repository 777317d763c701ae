package mirror

import (
	"context"
	"errors"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// An engine is a store that answers from where it is, and has the keys that callers use compared.
type engine struct {
	inner state.Engine
	c     *comparer
}

// wrap gives an engine that can do what e can.
func wrap(e state.Engine, c *comparer) state.Engine {
	base := &engine{e, c}
	scanner, scans := e.(state.Scanner)
	querier, queries := e.(state.Querier)
	replicated, hasReplica := e.(state.Replicated)
	scan, query, replica := scanPart{scanner}, queryPart{querier, c}, replicaPart{replicated, c}
	switch {
	case scans && queries && hasReplica:
		return struct {
			*engine
			scanPart
			queryPart
			replicaPart
		}{base, scan, query, replica}
	case scans && queries:
		return struct {
			*engine
			scanPart
			queryPart
		}{base, scan, query}
	case scans && hasReplica:
		return struct {
			*engine
			scanPart
			replicaPart
		}{base, scan, replica}
	case queries && hasReplica:
		return struct {
			*engine
			queryPart
			replicaPart
		}{base, query, replica}
	case scans:
		return struct {
			*engine
			scanPart
		}{base, scan}
	case queries:
		return struct {
			*engine
			queryPart
		}{base, query}
	case hasReplica:
		return struct {
			*engine
			replicaPart
		}{base, replica}
	default:
		return base
	}
}

// Get implements state.Engine.
func (e *engine) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	records, err := e.inner.Get(ctx, keys)
	if err == nil {
		e.c.used(keys...)
	}
	return records, err
}

// Exists implements state.Engine.
func (e *engine) Exists(ctx context.Context, keys []string) ([]bool, error) {
	found, err := e.inner.Exists(ctx, keys)
	if err == nil {
		e.c.used(keys...)
	}
	return found, err
}

// Apply implements state.Engine.
func (e *engine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	outcomes, err := e.inner.Apply(ctx, changes)
	e.changed(changes, outcomes, err)
	return outcomes, err
}

// Transact implements state.Engine.
func (e *engine) Transact(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	outcomes, err := e.inner.Transact(ctx, changes)
	e.changed(changes, outcomes, err)
	return outcomes, err
}

// Len implements state.Engine.
func (e *engine) Len(ctx context.Context) (int64, error) { return e.inner.Len(ctx) }

// changed passes on which keys were changed, or may have been.
func (e *engine) changed(changes []state.Change, outcomes []state.Outcome, err error) {
	doubt := errors.Is(err, state.ErrOutcomeUnknown)
	for i := range changes {
		if doubt || err == nil && (outcomes[i].Done || errors.Is(outcomes[i].Err, state.ErrOutcomeUnknown)) {
			e.c.changed(changes[i].Key)
		}
	}
}

// A scanPart walks the keys.
type scanPart struct{ scanner state.Scanner }

// Scan implements state.Scanner.
func (p scanPart) Scan(ctx context.Context, cursor string, limit int) (keys []string, next string, err error) {
	return p.scanner.Scan(ctx, cursor, limit)
}

// A queryPart evaluates queries. What they find is compared key by key: not whether the other place finds the same.
type queryPart struct {
	querier state.Querier
	c       *comparer
}

// Query implements state.Querier.
func (p queryPart) Query(ctx context.Context, q state.Query) ([]state.Record, error) {
	records, err := p.querier.Query(ctx, q)
	for i := range records {
		p.c.used(records[i].Key)
	}
	return records, err
}

// Count implements state.Querier.
func (p queryPart) Count(ctx context.Context, f state.Filter) (int64, error) {
	return p.querier.Count(ctx, f)
}

// Indexed implements state.Indexer.
func (p queryPart) Indexed() []string {
	if indexer, ok := p.querier.(state.Indexer); ok {
		return indexer.Indexed()
	}
	return nil
}

// A replicaPart has a copy that may lag. Keys that are read from it are compared by what the store itself has.
type replicaPart struct {
	replicated state.Replicated
	c          *comparer
}

// Eventual implements state.Replicated.
func (p replicaPart) Eventual() state.Engine { return wrap(p.replicated.Eventual(), p.c) }
