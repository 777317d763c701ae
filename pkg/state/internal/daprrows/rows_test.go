package daprrows_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/internal/daprrows"
)

// A JSON value is never taken for a ciphertext, and a key of an app never for an actor's.
func TestWhatRowsAre(t *testing.T) {
	ciphertext := strings.Repeat("QUJD", 12)
	for value, is := range map[string]bool{
		ciphertext + "QUJD||name": true, ciphertext + "QUI=||main key": true, `"` + ciphertext + `||name"`: false, "user||42": false, `{"a":"b||c"}`: false, "12": false, "true": false, ciphertext: false, "||name": false, ciphertext + "||": false,
	} {
		require.Equal(t, is, daprrows.IsEncrypted([]byte(value)), value)
	}
	for key, is := range map[string]bool{"Player||7||hp": true, "Player||7||a||b": true, "player|7|hp": false, "a||b": false, "k": false} {
		require.Equal(t, is, daprrows.IsActors(key), key)
	}
}
