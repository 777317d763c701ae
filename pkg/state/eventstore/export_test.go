package eventstore

// EngineOf lets tests put something between a store and its engine.
func EngineOf(s *Store) Engine { return s.engine }
