package mesh

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// headerTimeout tells how long the sender waits for the end of the response from the moment of sending, in
// milliseconds. A time that is left, unlike an instant, needs no clocks that agree.
const headerTimeout = "Bannou-Timeout-Ms"

// longestTimeout is what a header can ask for, in digits: 99 999 999 ms, more than a day.
const longestTimeout = 8

// errSenderTimeout is why the context of a request ends whose sender waits no longer.
var errSenderTimeout = fmt.Errorf("the time is up that the caller gave the request: %w", context.DeadlineExceeded)

type inboundKey struct{}

// An inbound is what the sender of a request said about it; it is in the context of a request that came in.
type inbound struct {
	spent bool // it is a further attempt
}

// Inbound makes a handler heed what a mesh client says in a request's headers:
//
//   - Bannou-Timeout-Ms, a whole number of milliseconds from 1 to 99999999: the request's context ends after it, and calls
//     made with that context carry what is left. Anything else is ignored.
//   - Bannou-Retries: spent. The request is a further attempt: calls made with its context are not sent again when they
//     fail, lest attempts multiply.
//
// Nobody gets more time by it: a handler's own limits stay, and a [Client] gives a call made with such a context no more
// than its own Timeout, which it does not do where a program set the deadline itself.
func Inbound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, end := receive(r.Context(), r.Header)
		defer end()
		if ctx != r.Context() {
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}

// receive puts what the sender said into the request's context, once.
func receive(ctx context.Context, h http.Header) (context.Context, context.CancelFunc) {
	nothing := func() {}
	if _, done := ctx.Value(inboundKey{}).(inbound); done {
		return ctx, nothing
	}
	timeout, bounded := parseTimeout(h[headerTimeout])
	spent := h.Get(headerRetries) == retriesSpent
	if !bounded && !spent {
		return ctx, nothing
	}
	ctx = context.WithValue(ctx, inboundKey{}, inbound{spent: spent})
	if !bounded {
		return ctx, nothing
	}
	return context.WithTimeoutCause(ctx, timeout, errSenderTimeout)
}

// parseTimeout reads the header. What is not exactly one value of digits is as if it were not there.
func parseTimeout(values []string) (time.Duration, bool) {
	if len(values) != 1 || values[0] == "" || len(values[0]) > longestTimeout {
		return 0, false
	}
	milliseconds := 0
	for _, c := range []byte(values[0]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		milliseconds = 10*milliseconds + int(c-'0')
	}
	return time.Duration(milliseconds) * time.Millisecond, milliseconds > 0
}

// setTimeout tells the receiver what is left. What a caller's caller said is not passed on as it was.
func setTimeout(ctx context.Context, h http.Header) {
	deadline, bounded := ctx.Deadline()
	if !bounded {
		h.Del(headerTimeout)
		return
	}
	left := min(max(1, time.Until(deadline).Milliseconds()), 99_999_999)
	h[headerTimeout] = []string{strconv.FormatInt(left, 10)}
}
