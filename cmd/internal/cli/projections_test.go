package cli

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/events/eventsapi"
)

// What a version still has of subjects that were erased is said of the live one, and of the one before, which stays on standby with it.
func TestNotesOnErasure(t *testing.T) {
	for _, c := range []struct {
		of   eventsapi.ProjectionVersion
		says string
	}{
		{eventsapi.ProjectionVersion{State: "live", Live: true, Followed: true, Erased: 2}, "2 subjects erased since it was begun: rebuild it where it has personal data"},
		{eventsapi.ProjectionVersion{State: "standby", Followed: true, Erased: 2}, "2 subjects erased since it was begun: drop it where it has personal data"},
		{eventsapi.ProjectionVersion{State: "standby", Erased: 2}, "2 subjects erased since it was begun: drop it where it has personal data"},
		{eventsapi.ProjectionVersion{State: "standby", Followed: true}, ""},
	} {
		require.Equal(t, c.says, noteOn(c.of), "%+v", c.of)
	}
}
