package state

import (
	"context"
	"fmt"
	"iter"
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

// A CursorPage is one page of a query's result, and where the next one begins.
type CursorPage[T any] struct {
	Items []Entry[T]
	Next  string // the cursor of the next page; empty: this is the last
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

// Indexed returns those of the declared indexes that are there and used. They are made in the background after the store was
// opened; queries are right without them, too.
func (s *QueryableStore[T]) Indexed() []string {
	if indexer, ok := s.querier.(Indexer); ok {
		return indexer.Indexed()
	}
	return nil
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

// QueryAfter returns the page of the entries that match after the one that the cursor stands for; the empty cursor begins.
// pageSize is 1 to 1000, 0 means 100. The query must be the one that the cursor came from, with the same filter and sorts,
// and have neither Limit, Offset nor After; a cursor that is damaged or of another query is ErrCursor (and ErrInvalid).
//
// A cursor holds a place in the order, not a snapshot, and stays good for ever: entries that are written or deleted
// meanwhile, the one it was made from among them, neither shift nor double the others. An entry that is itself changed so
// that it moves in the order is found where it is when its page is read.
func (s *QueryableStore[T]) QueryAfter(ctx context.Context, q Query, cursor string, pageSize int) (CursorPage[T], error) {
	if pageSize == 0 {
		pageSize = defaultPageSize
	}
	var result CursorPage[T]
	err := s.query(ctx, opQuery, func() (err error) {
		if err = checkPage(q, 0, pageSize); err != nil {
			return s.store.storeError(err)
		}
		if cursor != "" {
			if q.After, err = decodeCursor(s.store.cfg.Name, q, cursor); err != nil {
				return s.store.storeError(err)
			}
		}
		var next *Position
		if result.Items, next, err = s.findPage(ctx, q, pageSize); err != nil || next == nil {
			return err
		}
		if result.Next, err = encodeCursor(s.store.cfg.Name, q, *next); err != nil {
			return s.store.storeError(err)
		}
		return nil
	})
	if err != nil {
		return CursorPage[T]{}, err
	}
	return result, nil
}

// iterated is how many entries All asks for at once.
const iterated = 250

// All returns the entries that match, one after another, in the query's order. They are read from the engine some hundred
// at a time, each time after the last one read, as by QueryAfter. An error is the last thing that is yielded, with no entry.
func (s *QueryableStore[T]) All(ctx context.Context, q Query) iter.Seq2[Entry[T], error] {
	return func(yield func(Entry[T], error) bool) {
		for left := q.Limit; ; {
			size := iterated
			if q.Limit > 0 {
				size = min(size, left)
			}
			var entries []Entry[T]
			var next *Position
			err := s.query(ctx, opQuery, func() (err error) {
				entries, next, err = s.findPage(ctx, q, size)
				return err
			})
			if err != nil {
				yield(Entry[T]{}, err)
				return
			}
			for _, entry := range entries {
				if !yield(entry, nil) {
					return
				}
			}
			left -= len(entries)
			if next == nil || q.Limit > 0 && left == 0 {
				return
			}
			q.After, q.Offset = next, 0
		}
	}
}

// findPage reads the entries of one page, and the position of the last one when there are more.
func (s *QueryableStore[T]) findPage(ctx context.Context, q Query, size int) ([]Entry[T], *Position, error) {
	q.Limit = size
	if err := q.Validate(); err != nil {
		return nil, nil, s.store.storeError(err)
	}
	q.Limit = size + 1
	records, err := s.querier.Query(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	var next *Position
	if len(records) > size {
		records = records[:size]
		last, err := PositionOf(records[size-1], q.Sort)
		if err != nil {
			return nil, nil, s.store.storeError(err)
		}
		next = &last
	}
	entries, err := s.entries(q, records)
	return entries, next, err
}

// Count returns how many entries match. The zero Filter matches all.
func (s *QueryableStore[T]) Count(ctx context.Context, f Filter) (int64, error) {
	var n int64
	err := s.query(ctx, opCount, func() (err error) {
		if err = f.Err(); err != nil {
			return s.store.storeError(err)
		}
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
	return s.entries(q, records)
}

// entries decodes what the query asks for of the records.
func (s *QueryableStore[T]) entries(q Query, records []Record) ([]Entry[T], error) {
	keep, err := newProjection(q.Fields)
	if err != nil {
		return nil, s.store.storeError(err)
	}
	entries := make([]Entry[T], len(records))
	for i, r := range records {
		if keep != nil {
			if r.Value, err = keep.cut(r.Value); err != nil {
				return nil, s.store.keyError(r.Key, fmt.Errorf("%w: %w", ErrCorrupt, err))
			}
		}
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
	case q.Limit != 0 || q.Offset != 0 || q.After != nil:
		return fmt.Errorf("%w: a paged query has no limit, offset and position of its own", ErrInvalid)
	default:
		return nil
	}
}
