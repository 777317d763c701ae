package mesh

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func FuzzTimeoutHeader(f *testing.F) {
	for _, s := range []string{"1", "1500", "99999999", "100000000", "0", "00", "007", "-1", "+1", "1.5", "1e3", " 1", "1 ", "", "١", "0x10", "1,2", "9223372036854775808"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		timeout, bounded := parseTimeout([]string{value})
		if !bounded {
			assert.Zero(t, timeout, "%q", value)
			if n, err := strconv.ParseUint(value, 10, 64); err == nil && strconv.FormatUint(n, 10) == value {
				assert.True(t, n == 0 || n > 99_999_999, "%q is a number of milliseconds", value)
			}
			return
		}
		require.GreaterOrEqual(t, timeout, time.Millisecond)
		require.LessOrEqual(t, timeout, 99_999_999*time.Millisecond)
		n, err := strconv.ParseUint(value, 10, 64)
		require.NoError(t, err, "%q", value)
		require.Equal(t, time.Duration(n)*time.Millisecond, timeout)
		// What is read is what was written.
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			h := http.Header{}
			setTimeout(ctx, h)
			again, bounded := parseTimeout(h[headerTimeout])
			require.True(t, bounded)
			require.Equal(t, timeout, again)
		})
	})
}

func TestTwoTimeoutsAreNone(t *testing.T) {
	_, bounded := parseTimeout([]string{"100", "200"})
	assert.False(t, bounded)
	_, bounded = parseTimeout(nil)
	assert.False(t, bounded)
}

// received returns what a handler behind Inbound sees.
func received(ctx context.Context, header http.Header) (left time.Duration, bounded bool) {
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/x", nil)
	req.Header = header
	Inbound(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var deadline time.Time
		deadline, bounded = r.Context().Deadline()
		left = time.Until(deadline)
	})).ServeHTTP(httptest.NewRecorder(), req)
	return left, bounded
}

func TestInboundNeverLengthensATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		left, bounded := received(ctx, http.Header{"Bannou-Timeout-Ms": {"3600000"}})
		assert.True(t, bounded)
		assert.Equal(t, time.Second, left)
		left, _ = received(ctx, http.Header{"Bannou-Timeout-Ms": {"20"}})
		assert.Equal(t, 20*time.Millisecond, left)
		for _, wrong := range []string{"soon", "-5", "0", "1e3", ""} {
			_, bounded = received(t.Context(), http.Header{"Bannou-Timeout-Ms": {wrong}})
			assert.False(t, bounded, wrong)
		}
	})
}
