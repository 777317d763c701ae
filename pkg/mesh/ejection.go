package mesh

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// Ejection says when an instance that fails gets no requests for a while. A failure is a connection that could not be
// made or broke, a deadline that passed before the response began, or a status of 500 and above save 501; a call that
// its caller cancelled says nothing. The zero value is the defaults.
//
// An instance is ejected only while another one fails less than half as often: where all fail alike, none is an outlier.
type Ejection struct {
	// Off: no instance is ejected.
	Off bool
	// Consecutive is how many failures in a row eject. Default 5; negative: any number is suffered.
	Consecutive int
	// Share is the part of an instance's calls within Window that must fail for it to be ejected, above 0 to 1, when
	// there were MinCalls or more. The last 64 calls count. Default 0.5 of 20 in 10 s; a Share above 1: whatever fails
	// is suffered.
	Share    float64
	MinCalls int
	Window   time.Duration
	// Time is how long an instance is ejected for the first time. When the first call after that fails it is ejected again;
	// each time that follows before it was well for as long
	// as it was ejected is twice as long, up to MaxTime. Default 10 s, up to 5 min.
	Time, MaxTime time.Duration
	// PanicBelow is the part of the usable instances, 0 to 1, that must be left: when there are fewer, all get requests
	// as if none were ejected, because the few would be overrun. Default 0.3; negative: only when none is left.
	PanicBelow float64
}

func (e Ejection) withDefaults() (Ejection, error) {
	e.Consecutive = cmp.Or(e.Consecutive, 5)
	e.Share = cmp.Or(e.Share, 0.5)
	e.MinCalls = cmp.Or(e.MinCalls, 20)
	e.Window = cmp.Or(e.Window, 10*time.Second)
	e.Time = cmp.Or(e.Time, 10*time.Second)
	e.MaxTime = cmp.Or(e.MaxTime, max(5*time.Minute, e.Time))
	e.PanicBelow = cmp.Or(e.PanicBelow, 0.3)
	switch {
	case e.Share < 0 || math.IsNaN(e.Share):
		return e, fmt.Errorf("mesh: ejection share %v: choose above 0, and up to 1", e.Share)
	case e.MinCalls < 1 || e.MinCalls > windowCalls:
		return e, fmt.Errorf("mesh: ejection after %d calls: choose 1 to %d", e.MinCalls, windowCalls)
	case e.Window < 0 || e.Time < 0 || e.MaxTime < e.Time:
		return e, errors.New("mesh: ejection window and times must be positive, and the longest time no shorter than the first")
	case e.PanicBelow > 1 || math.IsNaN(e.PanicBelow):
		return e, fmt.Errorf("mesh: panic below %v: choose 0 to 1", e.PanicBelow)
	}
	return e, nil
}

// windowCalls is how many outcomes are remembered.
const windowCalls = 64

// A window is the latest outcomes of an instance's calls, each with its time: what lies within any span is counted, not
// estimated. Writers do not wait for one another; a count made meanwhile may have the one or the other.
type window struct {
	next  atomic.Uint32
	calls [windowCalls]atomic.Int64 // when it ended, in ns; negative: it failed; 0: none yet
}

func (w *window) add(now time.Duration, failed bool) {
	at := int64(max(1, now))
	if failed {
		at = -at
	}
	w.calls[(w.next.Add(1)-1)%windowCalls].Store(at)
}

// count returns how many calls ended after an instant, and how many of them failed.
func (w *window) count(after time.Duration) (calls, failures int) {
	for i := range w.calls {
		switch at := w.calls[i].Load(); {
		case at > int64(after):
			calls++
		case at < 0 && -at > int64(after):
			calls++
			failures++
		}
	}
	return calls, failures
}

func (w *window) clear() {
	for i := range w.calls {
		w.calls[i].Store(0)
	}
}

// An ejectionReason is why an instance was ejected, as metrics name it.
type ejectionReason string

const (
	ejectedConsecutive ejectionReason = "consecutive"
	ejectedShare       ejectionReason = "share"
	ejectedAgain       ejectionReason = "again" // the first call after an ejection failed
)

func (r ejectionReason) sentence() string {
	switch r {
	case ejectedConsecutive:
		return "calls failed in a row"
	case ejectedShare:
		return "too many of its calls failed"
	default:
		return "the first call after an ejection failed"
	}
}

// judgeEvery bounds how often an instance that fails all the time is looked at.
const judgeEvery = 50 * time.Millisecond

// record counts an outcome, and has the instance ejected if it is an outlier.
func (in *Instance) record(now time.Duration, failed bool) {
	in.window.add(now, failed)
	if !failed {
		if in.inARow.Load() != 0 {
			in.inARow.Store(0)
		}
		if in.onTrial.Load() && in.onTrial.CompareAndSwap(true, false) {
			in.pool.circuitOf(in, BreakerHalfOpen, BreakerClosed, "a call succeeded")
		}
		return
	}
	row := int(in.inARow.Add(1))
	e := &in.pool.ejection
	if e.Off || in.ejected.Load() != 0 {
		return
	}
	reason := ejectedConsecutive
	if in.onTrial.Load() {
		reason = ejectedAgain
	} else if e.Consecutive < 0 || row < e.Consecutive {
		calls, failures := in.window.count(now - e.Window)
		if calls < e.MinCalls || float64(failures) < e.Share*float64(calls) {
			return
		}
		reason = ejectedShare
	}
	if last := in.judged.Load(); last != 0 && int64(now)-last < int64(judgeEvery) || !in.judged.CompareAndSwap(last, int64(now)) {
		return
	}
	in.pool.eject(in, reason, now)
}

// failureShare is the exact share of failures in the window, for comparisons: at least one in a row counts for those
// whose calls are older than the window.
func (in *Instance) failureShare(now time.Duration) float64 {
	calls, failures := in.window.count(now - in.pool.ejection.Window)
	if calls == 0 {
		return 0
	}
	return float64(failures) / float64(calls)
}

// An ejectionCount is how often an instance was ejected before it was well for long enough.
type ejectionCount struct {
	length time.Duration // of the last ejection
	ended  time.Duration // when it was over
}

// next returns how long an ejection is that begins now.
func (c *ejectionCount) next(now time.Duration, e *Ejection) time.Duration {
	if c.length == 0 || now-c.ended >= max(c.length, e.Window) {
		c.length = e.Time
	} else {
		c.length = min(2*c.length, e.MaxTime)
	}
	return c.length
}
