package sqlevents

import (
	"database/sql"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// A scanner reads events from rows. Numbers are taken as the driver has them: database/sql would write and read them again as text. Names that are those
// of the event before are not made anew, and data is cut from larger pieces.
type scanner struct {
	rows *sql.Rows
	size int // of the data so far
	room []byte

	lastCategory, lastStream, lastKind string

	position, version, schema, recorded        any
	category, stream, kind, id, metadata, data sql.RawBytes
	into                                       []any
}

// newScanner reads rows of columns, and of what else there is.
func newScanner(rows *sql.Rows, more ...any) *scanner {
	s := &scanner{rows: rows}
	s.into = append([]any{&s.position, &s.category, &s.stream, &s.version, &s.id, &s.kind, &s.schema, &s.metadata, &s.data, &s.recorded}, more...)
	return s
}

// event puts the row that rows has come to where its event is to be, which is zero: to return it was a third of what reading allocates.
func (s *scanner) event(e *eventstore.Recorded) error {
	if err := s.rows.Scan(s.into...); err != nil {
		return err
	}
	e.Stream.Category, e.Stream.ID, e.Type = same(&s.lastCategory, s.category), same(&s.lastStream, s.stream), same(&s.lastKind, s.kind)
	e.Data = s.copied(s.data)
	var numeric [4]bool
	var schema, recorded int64
	e.Position, numeric[0] = s.position.(int64)
	e.Version, numeric[1] = s.version.(int64)
	schema, numeric[2] = s.schema.(int64)
	recorded, numeric[3] = s.recorded.(int64)
	if numeric != [4]bool{true, true, true, true} {
		return fmt.Errorf("%w: the numbers of an event are %T, %T, %T and %T", state.ErrCorrupt, s.position, s.version, s.schema, s.recorded)
	}
	e.Schema, e.RecordedAt = int(schema), time.UnixMicro(recorded).UTC()
	parsed, err := uuid.FromBytes(s.id)
	if err == nil && string(s.metadata) != noMetadata {
		err = json.Unmarshal(s.metadata, &e.Metadata)
	}
	if err != nil {
		return fmt.Errorf("%w: version %d of stream %s, position %d: %w", state.ErrCorrupt, e.Version, e.Stream, e.Position, err)
	}
	e.ID = parsed.String()
	s.size += len(e.Data)
	return nil
}

// same is the text, which is most often that of the row before.
func same(before *string, text []byte) string {
	if *before != string(text) {
		*before = string(text)
	}
	return *before
}

// pieceBytes is how much memory is taken at once, at most, for the data of events. Who keeps one event keeps so much.
const pieceBytes = 16 << 10

func (s *scanner) copied(data []byte) []byte {
	if len(data) > pieceBytes/8 {
		return append([]byte(nil), data...)
	}
	if len(data) > cap(s.room)-len(s.room) {
		s.room = make([]byte, 0, max(len(data), min(s.size, pieceBytes))) // more for those who read more
	}
	begin := len(s.room)
	s.room = append(s.room, data...)
	return s.room[begin:len(s.room):len(s.room)]
}

// textOf is the text of an id, or empty where that is none.
func textOf(id []byte) string {
	parsed, err := uuid.FromBytes(id)
	if err != nil {
		return ""
	}
	return parsed.String()
}
