package state_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

func TestExpiry(t *testing.T) {
	for _, c := range []struct {
		expiry state.Expiry
		text   string
		ttl    time.Duration
	}{
		{0, "default", 0},
		{state.Keep, "keep", 0},
		{state.Never, "never", 0},
		{state.After(time.Second), "after 1s", time.Second},
		{state.After(time.Nanosecond), "after 1ms", time.Millisecond},
		{state.After(1500 * time.Microsecond), "after 2ms", 2 * time.Millisecond},
		{state.After(0), "invalid", 0},
		{state.After(-time.Hour), "invalid", 0},
	} {
		ttl, ok := c.expiry.TTL()
		require.Equal(t, c.ttl, ttl, c.text)
		require.Equal(t, c.ttl > 0, ok, c.text)
		require.Equal(t, c.text, c.expiry.String())
	}
}
