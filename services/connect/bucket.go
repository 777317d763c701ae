package connect

import "time"

// A bucket of tokens, one of which each message takes. It holds burst, and gets rate in a second.
type bucket struct {
	tokens float64
	at     time.Time
}

// take takes a token if there is one. Who goes on without gets into debt; flood reports when that is ten bursts.
func (b *bucket) take(now time.Time, rate, burst int) (ok, flood bool) {
	if b.at.IsZero() {
		b.tokens = float64(burst)
	} else if passed := now.Sub(b.at); passed > 0 {
		b.tokens = min(float64(burst), b.tokens+passed.Seconds()*float64(rate))
	}
	b.at = now
	if b.tokens >= 1 {
		b.tokens--
		return true, false
	}
	b.tokens--
	return false, b.tokens < -10*float64(burst)
}
