package daprstate

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A sidecar that was started without the store's component refuses all writes with the status of bad input, which they are not.
func TestWritingWithoutTheComponent(t *testing.T) {
	s := &sidecar{}
	for _, code := range []string{"ERR_STATE_STORE_NOT_FOUND", "ERR_STATE_STORE_NOT_CONFIGURED"} {
		err := s.writing(t.Context(), true, &refusal{status: 400, code: code, message: "state store carts is not found"})
		require.ErrorIs(t, err, state.ErrUnavailable)
		require.NotErrorIs(t, err, state.ErrInvalid)
	}
	require.ErrorIs(t, s.writing(t.Context(), true, &refusal{status: 400, code: "ERR_MALFORMED_REQUEST"}), state.ErrInvalid)
}
