package auth

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/problem"
)

// Throttle says how many tries may fail. Tries are counted before they are made, so that many at once are no way around it.
type Throttle struct {
	// Window is how long a try counts, from the first of its kind on. Default: 15 min.
	Window time.Duration
	// PerAccount is how many logins of one account, there or not, may fail in it. Default: 10.
	PerAccount int
	// PerAddress is how many logins, registrations or requests of letters may fail, or be made, from one address in it; of IPv6, from
	// one /64. Default: 100.
	PerAddress int
	// Letters is how many letters one account may be sent in it. Default: 3.
	Letters int
}

// A count is of tries since the first.
type count struct {
	Tries int       `json:"tries"`
	Since time.Time `json:"since"`
}

// counters keep counts in the store, where all nodes see them.
type counters struct {
	factory *state.Factory
	now     func() time.Time
	window  time.Duration
}

func (c counters) open(ctx context.Context) (*state.Store[count], error) {
	return state.Open[count](ctx, c.factory, SessionStore)
}

// take counts one try. When there were most of them already it counts none, and says how long to wait.
func (c counters) take(ctx context.Context, key string, most int) (wait time.Duration, err error) {
	store, err := c.open(ctx)
	if err != nil {
		return 0, err
	}
	err = swap(ctx, store, key, func(v *count) (bool, time.Duration, error) {
		now := c.now()
		if v.Tries == 0 || now.Sub(v.Since) >= c.window || now.Before(v.Since) {
			*v = count{Since: now}
		}
		left := c.window - now.Sub(v.Since)
		if v.Tries >= most {
			wait = left
			return false, 0, nil
		}
		wait = 0
		v.Tries++
		return true, max(left, time.Millisecond), nil
	})
	if errors.Is(err, state.ErrConflict) { // a crowd at one counter: more tries than anybody makes by hand
		return time.Second, nil
	}
	return wait, err
}

// giveBack takes one try back, which was none that counts.
func (c counters) giveBack(ctx context.Context, key string) error {
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	return swap(ctx, store, key, func(v *count) (bool, time.Duration, error) {
		left := c.window - c.now().Sub(v.Since)
		if v.Tries == 0 || left <= 0 {
			return false, 0, nil
		}
		v.Tries--
		return true, left, nil
	})
}

// forget begins anew.
func (c counters) forget(ctx context.Context, key string) error {
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	_, err = store.Delete(ctx, key)
	return err
}

// throttled is the answer to who has to wait.
func throttled(wait time.Duration) error {
	return problem.New(problem.TooManyRequests, "too many tries; wait as long as Retry-After says").RetryAfter(wait)
}

// Keys of counters. An address of a letter is kept as a digest.
func perAccount(kind, email string) string {
	return "throttle:" + kind + ":" + hex.EncodeToString(digest([]byte(strings.ToLower(email))))
}

func perAddress(kind, address string) string { return "throttle:" + kind + "-from:" + address }

// address is where a request comes from: whom the connection is with, or, where that is one of the proxies, whom the last of
// these was called by.
func address(r *http.Request, proxies []netip.Prefix) string {
	caller := parseAddress(r.RemoteAddr)
	trusted := func(a netip.Addr) bool {
		return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	if caller.IsValid() && trusted(caller) {
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for _, hop := range slices.Backward(hops) {
			a := parseAddress(strings.TrimSpace(hop))
			if !a.IsValid() {
				break
			}
			caller = a
			if !trusted(a) {
				break
			}
		}
	}
	switch {
	case !caller.IsValid():
		return "unknown"
	case caller.Is6():
		network, err := caller.Prefix(64)
		if err == nil {
			return network.Masked().String()
		}
	}
	return caller.String()
}

func parseAddress(text string) netip.Addr {
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}
