package state

import (
	"context"
	"fmt"
)

// defaultPageSize is the page size of QueryPaged when 0 is asked for.
const defaultPageSize = 100

// A QueryableStore is a Store whose engine can find values by what is in them.
type QueryableStore[T any] struct {
	*Store[T]
	querier Querier
}

// A Page is one page of a query's result.
type Page[T any] struct {
	Items      []Entry[T]
	TotalCount int64 // of all pages, counted in a step of its own
	Page       int   // from 0
	PageSize   int
}

// OpenQueryable is Open for a store that is to be queried. It returns ErrUnsupported if the store's engine cannot.
func OpenQueryable[T any](ctx context.Context, f *Factory, name string) (*QueryableStore[T], error) {
	s, err := Open[T](ctx, f, name)
	if err != nil {
		return nil, err
	}
	querier, ok := s.store.engine.(Querier)
	if !ok {
		return nil, s.store.storeError(fmt.Errorf("%w: backend %q cannot query; keep the store in one that can, such as mysql or sqlite",
			ErrUnsupported, s.store.cfg.Backend))
	}
	return &QueryableStore[T]{Store: s, querier: querier}, nil
}

// Query returns the entries that match, in the query's order, ties in key order. A bad query is a *FilterError
// (errors.Is ErrInvalid).
func (s *QueryableStore[T]) Query(ctx context.Context, q Query) ([]Entry[T], error) {
	var entries []Entry[T]
	err := s.query(ctx, opQuery, func() (err error) {
		entries, err = s.find(ctx, q)
		return err
	})
	return entries, err
}

// QueryPaged returns one page of the entries that match, and how many match in all. Pages count from 0; pageSize is 1 to
// 1000, 0 means 100. The query's Limit and Offset must be zero.
func (s *QueryableStore[T]) QueryPaged(ctx context.Context, q Query, page, pageSize int) (Page[T], error) {
	if pageSize == 0 {
		pageSize = defaultPageSize
	}
	result := Page[T]{Page: page, PageSize: pageSize}
	err := s.query(ctx, opQuery, func() (err error) {
		if err = checkPage(q, page, pageSize); err != nil {
			return s.store.storeError(err)
		}
		q.Limit, q.Offset = pageSize, page*pageSize
		if result.Items, err = s.find(ctx, q); err != nil {
			return err
		}
		result.TotalCount, err = s.querier.Count(ctx, q.Filter)
		return err
	})
	if err != nil {
		return Page[T]{}, err
	}
	return result, nil
}

// Count returns how many entries match. The zero Filter matches all.
func (s *QueryableStore[T]) Count(ctx context.Context, f Filter) (int64, error) {
	var n int64
	err := s.query(ctx, opCount, func() (err error) {
		n, err = s.querier.Count(ctx, f)
		return err
	})
	return n, err
}

func (s *QueryableStore[T]) find(ctx context.Context, q Query) ([]Entry[T], error) {
	if err := q.Validate(); err != nil {
		return nil, s.store.storeError(err)
	}
	records, err := s.querier.Query(ctx, q)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry[T], len(records))
	for i, r := range records {
		if entries[i], err = entryOf[T](s.store, r); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

func (s *QueryableStore[T]) query(ctx context.Context, op operation, run func() error) error {
	return s.store.recorder.record(ctx, op, "", func() error {
		if err := ctx.Err(); err != nil {
			return s.store.storeError(err)
		}
		return run()
	})
}

// maxPage keeps page times page size far from overflow.
const maxPage = 1 << 30

func checkPage(q Query, page, pageSize int) error {
	switch {
	case page < 0 || page > maxPage:
		return fmt.Errorf("%w: page %d: pages count from 0 to %d", ErrInvalid, page, maxPage)
	case pageSize < 1 || pageSize > MaxPageSize:
		return fmt.Errorf("%w: page size %d: use 1 to %d", ErrInvalid, pageSize, MaxPageSize)
	case q.Limit != 0 || q.Offset != 0:
		return fmt.Errorf("%w: a paged query has no limit and offset of its own", ErrInvalid)
	default:
		return nil
	}
}
