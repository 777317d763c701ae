package rabbitbus

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// A management API that is away, or refuses its user, is a broker that is not available, and no fault of the node. The
// password is in no error.
func TestManagementThatIsAway(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	defer refusing.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for _, server := range []*httptest.Server{refusing, gone} {
		m, err := newManagement(&Config{
			URLs: []string{"amqp://localhost"}, ManagementURL: strings.Replace(server.URL, "://", "://user:hunter2@", 1),
		})
		require.NoError(t, err)
		_, _, err = m.queues(t.Context())
		m.close()
		require.ErrorIs(t, err, bus.ErrUnavailable)
		require.NotContains(t, err.Error(), "hunter2")
	}
}
