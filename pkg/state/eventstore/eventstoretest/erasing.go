package eventstoretest

import (
	"context"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// slow is an engine whose answer with keys takes until it is let through.
type slow struct {
	eventstore.Engine
	asked, answer chan struct{}
}

func (s *slow) SubjectKeys(ctx context.Context, ids []string) ([]eventstore.SubjectKey, error) {
	keys, err := s.Engine.SubjectKeys(ctx, ids)
	select {
	case s.asked <- struct{}{}:
		<-s.answer
	default:
	}
	return keys, err
}

// Who reads while a subject is erased may still see it; who reads after that does not, in this process.
func erasedWhileReading(t *testing.T, open Open) {
	engine := &slow{Engine: open(t, eventstore.Config{}).Engine(), asked: make(chan struct{}, 1), answer: make(chan struct{})}
	s := eventstore.New(engine, eventstore.Config{})
	mustAppend(t, s, stream("a"), 0, personal("ada", ofAda))
	read := make(chan error, 1)
	go func() {
		for _, err := range s.ReadStream(context.WithoutCancel(t.Context()), stream("a"), eventstore.ReadOptions{}) {
			read <- err
		}
	}()
	<-engine.asked
	_, err := s.Erase(t.Context(), "ada")
	require.NoError(t, err)
	close(engine.answer)
	require.NoError(t, <-read)
	require.Len(t, CheckOrder(t, s)[0].Erased, 2)
}

// An erasing engine has somebody else erase a subject right behind each append.
type erasing struct {
	eventstore.Engine
	subject string
}

func (e *erasing) Append(ctx context.Context, appends []eventstore.Append) ([]eventstore.Appended, error) {
	appended, err := e.Engine.Append(ctx, appends)
	if err == nil {
		_, err = e.DestroyKey(ctx, e.subject)
	}
	return appended, err
}

// A snapshot of what was decided holds nothing either of a subject that was erased before it was taken.
func erasedBeforeSnapshot(t *testing.T, open Open) {
	s := eventstore.New(&erasing{Engine: open(t, eventstore.Config{}).Engine(), subject: "ada"}, eventstore.Config{})
	a := members(t, s, eventstore.SnapshotPolicy{Events: 1})
	join(t, a, "m", "ada", "Ada")
	_, found, err := s.LoadSnapshot(t.Context(), eventstore.StreamID{Category: "member", ID: "m"}, 1)
	require.NoError(t, err)
	require.False(t, found)
	loaded, err := a.Load(t.Context(), "m")
	require.NoError(t, err)
	require.Equal(t, eventstore.Loaded[member]{State: member{City: "York", Fees: 10}, Version: 1}, loaded)
	require.Equal(t, []jsontext.Pointer{"/name", "/address/street"}, CheckOrder(t, s)[0].Erased)
}
