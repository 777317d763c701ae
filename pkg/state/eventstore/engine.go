package eventstore

import "context"

// An Engine is one log of a driver. What it is given has been checked. It is safe for concurrent use, and reports errors as a
// state.Driver does.
type Engine interface {
	Marks
	Keys

	// Append makes the appends, all or none, as Store.AppendAll promises. Their events have ids, and their memory is the engine's.
	Append(ctx context.Context, appends []Append) ([]Appended, error)

	// Read returns the first events of a range in its order, and whether there may be more. It may return fewer than the limit where
	// they are large, at least one.
	Read(ctx context.Context, r Range) (events []Recorded, more bool, err error)

	// Head returns the position of the last event; 0: there is none.
	Head(ctx context.Context) (int64, error)

	// Streams returns the first streams of a category whose ids come behind one, in the order of their bytes, at most limit.
	Streams(ctx context.Context, category, after string, limit int) ([]StreamVersion, error)

	// SaveSnapshot keeps a snapshot, unless there is one of the stream and schema with the same or a later version.
	SaveSnapshot(ctx context.Context, s Snapshot) error

	// LoadSnapshot returns the snapshot of a stream and schema, if there is one.
	LoadSnapshot(ctx context.Context, stream StreamID, schema int) (s Snapshot, found bool, err error)
}

// A Range is a part of the log, or with a Category of that, or with an ID too of one stream, which has versions where the others have
// positions.
type Range struct {
	Category string
	ID       string
	From     int64 // the first; 0 and backward: the last there is
	Backward bool
	Limit    int // at least 1

	// Dense says that most events from there on are of the category, as the page before was. It is a hint.
	Dense bool
}
