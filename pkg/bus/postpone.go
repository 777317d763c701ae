package bus

import (
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"
)

const (
	// MaxRetryAfter is the longest that RetryAfter postpones an event at a time.
	MaxRetryAfter = time.Hour
	// MaxPostponed is how long an event may be postponed again and again before that counts as failing.
	MaxPostponed = 24 * time.Hour
)

// HeaderPostponed says how often an event was postponed, and since when: "3 2006-01-02T15:04:05Z". It is on redeliveries
// only.
const HeaderPostponed = "postponed"

// postponedError marks a failure after which trying again is of no use before some time has passed.
type postponedError struct {
	err   error
	pause time.Duration
}

func (e *postponedError) Error() string { return e.err.Error() }
func (e *postponedError) Unwrap() error { return e.err }

// RetryAfter marks a handler's error as one that time mends, as of a server that asks for patience: the event is
// delivered again no earlier than after the pause, held by the broker meanwhile. It is neither called again at once nor
// counted in RetryMaxAttempts, until it has been postponed for MaxPostponed. A pause over MaxRetryAfter is cut to that; one
// that is not positive marks nothing. Where the subscription has AutoAck, the broker holds nothing, and the failure is one
// like any other. RetryAfter of nil is nil.
func RetryAfter(err error, pause time.Duration) error {
	if err == nil || pause <= 0 {
		return err
	}
	return &postponedError{err: err, pause: min(pause, MaxRetryAfter)}
}

// pauseOf is the pause that an error asks for, 0 when it asks for none.
func pauseOf(err error) time.Duration {
	var p *postponedError
	if errors.As(err, &p) {
		return p.pause
	}
	return 0
}

// postponements is how often a delivery's message was postponed, and since when. A header that cannot be this queue's
// counts as none: somebody has copied the message from another.
func (w *work) postponements() (times int, since time.Time) {
	count, begin, found := strings.Cut(w.message.Headers[HeaderPostponed], " ")
	if !found {
		return 0, time.Time{}
	}
	times, err := strconv.Atoi(count)
	since, timeErr := time.Parse(time.RFC3339, begin)
	if err != nil || timeErr != nil || times < 1 || times >= w.delivery.Attempt() || since.After(time.Now()) {
		return 0, time.Time{}
	}
	return times, since
}

// failures is which attempt this is without those that were postponed, from 1.
func (w *work) failures() int {
	times, _ := w.postponements()
	return w.delivery.Attempt() - times
}

// postpone writes a further postponement into the message that is delivered again. It reports false, and writes nothing,
// when there were enough of them.
func (w *work) postpone(now time.Time) bool {
	times, since := w.postponements()
	if times == 0 {
		since = now
	}
	if now.Sub(since) > MaxPostponed {
		return false
	}
	headers := maps.Clone(w.message.Headers) // the handler may have kept the other one
	if headers == nil {
		headers = make(map[string]string, 1)
	}
	headers[HeaderPostponed] = strconv.Itoa(times+1) + " " + since.UTC().Format(time.RFC3339)
	w.message.Headers = headers
	return true
}
