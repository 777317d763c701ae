package accounts

import (
	"flag"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore/eventstoretest"
)

var update = flag.Bool("update", false, "write golden files of versions that were never published")

// What was appended once is read for ever, and what was about a person stays so.
func TestEventsAsPublished(t *testing.T) {
	types, err := newTypes()
	require.NoError(t, err)
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	eventstoretest.Golden(t, types, "testdata/events", *update,
		registered{Email: "ada@example.org", DisplayName: "Ada", Roles: []string{"user"}, At: at}, renamed{DisplayName: "Ada L.", At: at},
		emailChanged{Email: "lovelace@example.org", At: at}, rolesChanged{Roles: []string{"user", "admin"}, At: at},
		deleted{Reason: "asked for it", At: at}, erased{At: at}, reserved{AccountID: "0b0a7d0e-5b0f-4c39-9a4e-0f6c0a1b2c3d"}, released{})
}
