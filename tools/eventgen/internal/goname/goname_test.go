package goname

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExported(t *testing.T) {
	for name, want := range map[string]string{
		"eventId":                  "EventID",
		"sessionIds":               "SessionIDs",
		"callbackUrl":              "CallbackURL",
		"etag":                     "ETag",
		"httpStatus":               "HTTPStatus",
		"HTTPStatus":               "HTTPStatus",
		"idle":                     "Idle",
		"version2Id":               "Version2ID",
		"mesh.endpoint.registered": "MeshEndpointRegistered",
		"session-state-changed":    "SessionStateChanged",
		"shuttingDown":             "ShuttingDown",
		"max_retries exceeded":     "MaxRetriesExceeded",
		"élan":                     "Élan",
		"--":                       "",
		"":                         "",
	} {
		require.Equal(t, want, Exported(name), name)
	}
}
