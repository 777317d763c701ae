package state

// A Replicated is an Engine that has a copy of its data which may lag behind.
type Replicated interface {
	Engine

	// Eventual returns an engine of the same store whose reads may come from the copy. Its changes are made where all are.
	// When the copy cannot be read, the data itself is.
	Eventual() Engine
}

// Eventual returns a view of the store whose reads may be answered by a replica: they are spared the primary, and may
// miss the newest changes, the caller's own too. How far a replica lags is for its operators to watch. Saves and deletes
// are as strong as ever; one on condition of an ETag that was read here conflicts if that was an old one. Where the
// engine has no replica it is the store itself.
func (s *Store[T]) Eventual() *Store[T] {
	replicated, ok := s.store.engine.(Replicated)
	if !ok {
		return s
	}
	view := *s.store
	view.engine = replicated.Eventual()
	return &Store[T]{store: &view}
}

// Eventual returns a view of the store whose reads and queries may be answered by a replica, as Store.Eventual says.
func (s *QueryableStore[T]) Eventual() *QueryableStore[T] {
	view := s.Store.Eventual()
	if querier, ok := view.store.engine.(Querier); ok {
		return &QueryableStore[T]{Store: view, querier: querier}
	}
	return s
}
