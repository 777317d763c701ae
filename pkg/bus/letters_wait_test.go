package bus_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
)

// Who asks for dead letters while they cannot be read is told so, also where nothing else ends the wait.
func TestReadingLettersDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		driver := memorybus.New(memorybus.Config{})
		b, err := bus.New(driver, bus.Config{})
		require.NoError(t, err)
		other, err := driver.Letters(t.Context())
		require.NoError(t, err)
		begin := time.Now()
		_, err = b.ListLetters(t.Context(), bus.LetterFilter{}, bus.LetterPage{})
		require.ErrorIs(t, err, bus.ErrUnavailable)
		require.Equal(t, 10*time.Second, time.Since(begin))
		require.NoError(t, other.Close(t.Context()))
		_, err = b.ListLetters(t.Context(), bus.LetterFilter{}, bus.LetterPage{})
		require.NoError(t, err)
		require.NoError(t, driver.Close(t.Context()))
	})
}
