package eventstoretest

import (
	"context"
	"testing"

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
	engine := &slow{Engine: open(t, eventstore.Config{}).Engine(), asked: make(chan struct{}), answer: make(chan struct{})}
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
