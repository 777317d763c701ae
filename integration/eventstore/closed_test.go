package eventstore_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/eventstoretest"
)

// A stream that one process has closed is closed for another, whatever that knows of its end.
func TestClosedElsewhere(t *testing.T) {
	dsn := servers.MySQL(t).DSN
	one, other := open(t, dsn, eventstore.Config{}), open(t, dsn, eventstore.Config{})
	for i, expected := range []eventstore.Expected{eventstore.Any, 1, 2, 3} {
		stream := eventstore.StreamID{Category: "closed", ID: string(rune('a' + i))}
		appendTo(t, one, stream, eventstore.NoStream, 1)
		appendTo(t, one, stream, eventstore.Any, 1) // it knows the version
		_, err := other.CloseStream(t.Context(), stream, 2)
		require.NoError(t, err)
		for range 2 { // the second one by what the first has read
			_, err = one.Append(t.Context(), stream, expected, events(1)...)
			require.Error(t, err)
			if expected == eventstore.Any || expected == 3 {
				require.ErrorIs(t, err, eventstore.ErrStreamClosed)
			}
		}
	}
	require.Len(t, eventstoretest.CheckOrder(t, one), 12)
}
