package auth

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// Few hashes are made at a time, a bounded number of callers wait, and the rest is refused: logins cannot eat all memory.
func TestHashesAreBounded(t *testing.T) {
	entered, leave := make(chan struct{}, 100), make(chan struct{})
	h := newHasher(Hashing{MemoryKiB: 8, Iterations: 1, Concurrency: 2, Waiting: 3}, func(context.Context) { entered <- struct{}{}; <-leave })
	var wait sync.WaitGroup
	errs := make(chan error, 5)
	for range 5 {
		wait.Go(func() { _, err := h.hash(t.Context(), "x"); errs <- err })
	}
	<-entered
	<-entered
	require.Eventually(t, func() bool { return len(h.places) == 5 }, 10*time.Second, time.Millisecond)
	require.Empty(t, entered, "two work, three wait")
	_, err := h.hash(t.Context(), "one more")
	require.ErrorIs(t, err, errBusy)
	close(leave)
	wait.Wait()
	for range 5 {
		require.NoError(t, <-errs)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	h.working <- struct{}{}
	h.working <- struct{}{}
	_, err = h.hash(ended, "x")
	require.ErrorIs(t, err, errBusy, "who waits leaves when his time is over")
}

func TestHashesAreRead(t *testing.T) {
	h := newHasher(Hashing{MemoryKiB: 8, Iterations: 1}, func(context.Context) {})
	made, err := h.hash(t.Context(), "password")
	require.NoError(t, err)
	require.Regexp(t, `^\$argon2id\$v=19\$m=8,t=1,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`, made)
	right, old, err := h.verify(t.Context(), "password", made)
	require.NoError(t, err)
	require.Equal(t, []bool{true, false}, []bool{right, old})
	// Made by argon2 of the reference implementation: echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1 -l 32 -e (RFC 9106).
	right, old, err = h.verify(t.Context(), "password", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	require.NoError(t, err)
	require.Equal(t, []bool{true, true}, []bool{right, old})
	for _, bad := range []string{"", "x", "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5Q", "$argon2id$v=18$m=8,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5Q",
		strings.Replace(made, "m=8", "m=4294967295", 1), strings.Replace(made, "t=1", "t=0", 1), strings.Replace(made, "p=1", "p=0", 1),
		strings.Replace(made, "m=8", "m=08", 1), made + "=", made + "$", "$argon2id$v=19$m=8,t=1,p=1$$"} {
		_, _, err := h.verify(t.Context(), "password", bad)
		require.ErrorIs(t, err, errMalformed, bad)
	}
}

func FuzzRefreshToken(f *testing.F) {
	_, t := newChain(uuid.New(), uuid.New(), time.Now())
	f.Add(t.String())
	f.Add("brt_")
	f.Add(t.String() + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := parseRefreshToken(text)
		if err == nil {
			require.Equal(t, text, token.String(), "one token has one form")
		}
	})
}

func FuzzStoredHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Fuzz(func(t *testing.T, text string) {
		p, key, err := decode(text)
		if err == nil {
			require.Equal(t, text, p.encode(key))
			require.LessOrEqual(t, p.memory, uint32(maxStoredMemoryKiB))
		}
	})
}

func TestWhereARequestComesFrom(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct{ remote, forwarded, want string }{
		{"192.0.2.1:99", "", "192.0.2.1"},
		{"192.0.2.1:99", "198.51.100.7", "192.0.2.1"}, // no proxy of ours says so
		{"10.0.0.1:99", "198.51.100.7", "198.51.100.7"},
		{"10.0.0.1:99", "203.0.113.9, 198.51.100.7, 10.0.0.2", "198.51.100.7"}, // what stands before it may be made up
		{"10.0.0.1:99", "nonsense", "10.0.0.1"},
		{"10.0.0.1:99", "198.51.100.7, nonsense", "10.0.0.1"},
		{"10.0.0.1:99", "", "10.0.0.1"},
		{"[::ffff:10.0.0.1]:99", "198.51.100.7", "198.51.100.7"},
		{"[2001:db8:1:2:3:4:5:6]:99", "", "2001:db8:1:2::/64"},
		{"", "", "unknown"},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{}}
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		require.Equal(t, c.want, address(r, proxies), "%+v", c)
	}
}
