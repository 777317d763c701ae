package cli

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
)

func TestInstant(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{"": "", "2h": "2026-01-02T10:00:00Z", "2026-01-01T00:00:00Z": "2026-01-01T00:00:00Z"} {
		got, err := instant("--since", text, now)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, text := range []string{"yesterday", "-2h"} {
		_, err := instant("--since", text, now)
		require.ErrorContains(t, err, "--since")
		require.ErrorAs(t, err, new(usageError))
	}
}

func TestDiscardOfManyAsksFirst(t *testing.T) {
	err := confirm(&stdio{in: strings.NewReader("y\n"), err: io.Discard}, "remove 7 dead letters for good?")
	require.ErrorContains(t, err, "--yes")
	require.ErrorAs(t, err, new(usageError))
}

func TestFollowedStream(t *testing.T) {
	stream := func(body string) (messagingapi.ReplayDeadLettersResponse, error) {
		var shown bytes.Buffer
		defer func() { require.NotContains(t, shown.String(), "\x1b", "no bar where nobody looks") }()
		return followed[messagingapi.ReplayDeadLettersResponse](&stdio{err: &shown})(
			&http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body))}, nil)
	}
	done, err := stream(`{"total":2,"read":1}` + "\n" + `{"total":2,"read":2,"result":{"replayed":2}}` + "\n")
	require.NoError(t, err)
	require.EqualValues(t, 2, done.Replayed)
	_, err = stream(`{"total":2,"read":1}` + "\n" + `{"problem":{"detail":"the broker is away","code":"unavailable","status":503}}`)
	require.EqualError(t, err, "the broker is away (unavailable, status 503)")
	_, err = stream(`{"total":2,"read":1}` + "\n")
	require.ErrorContains(t, err, "broke off")
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, "[###############...............] 1/2", bar(1, 2))
}
