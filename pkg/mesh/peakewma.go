package mesh

import (
	"math/rand/v2"
	"time"
)

// PeakEWMA returns the default balancer: of two instances drawn by chance, the one that is likely to answer first. An
// instance's score is its latency, times the requests that this client has in flight there and the new one, times
// 1/(1-f)² where it failed a share f of its latest calls; see [Instance.Latency] and [Instance.FailureShare]. Of an
// instance whose latency is not known yet, that of the other is assumed. When the better one fails half of its calls or
// more, two others are drawn, three times at most.
//
// Two choices suffice against herds (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001); the
// moving average that jumps to peaks and sinks slowly is from Finagle.
func PeakEWMA() Balancer { return peakEWMA{rand.Uint64} }

type peakEWMA struct{ rand func() uint64 }

func (b peakEWMA) Picker(instances []*Instance) Picker {
	return &twoChoices{instances: instances, rand: b.rand}
}

type twoChoices struct {
	instances []*Instance
	rand      func() uint64
}

func (p *twoChoices) Pick(now time.Duration) *Instance {
	if len(p.instances) == 1 {
		return p.instances[0]
	}
	for try := 0; ; try++ {
		in, good := p.choose(now)
		if good || try == redraws {
			return in
		}
	}
}

// mostlyFailing is a share of failures from which on two other instances are drawn.
const mostlyFailing = 0.5

// choose draws two and returns the better one; good is false when it is worth another try.
func (p *twoChoices) choose(now time.Duration) (in *Instance, good bool) {
	a, b := p.draw()
	if a.startsSlowly() || b.startsSlowly() {
		if a, b = p.admitted(a, b, now); b == nil {
			return a, len(p.instances) == 2
		}
	}
	fa, fb := a.figuresAt(now), b.figuresAt(now)
	switch {
	case fa.latency == 0 && fb.latency == 0:
		fa.latency, fb.latency = 1, 1
	case fa.latency == 0:
		fa.latency = fb.latency
	case fb.latency == 0:
		fb.latency = fa.latency
	}
	if score(fb, b.InFlight()) < score(fa, a.InFlight()) {
		return b, fb.failing < mostlyFailing
	}
	return a, fa.failing < mostlyFailing
}

// admitted returns two that take a request now. One that starts slowly and does not has another drawn in its place: to take
// its rival unseen would send the worst instance as many requests as it spares the new one. b is nil when there are not two.
func (p *twoChoices) admitted(a, b *Instance, now time.Duration) (*Instance, *Instance) {
	if !a.admits(now, p.rand) {
		a, b = b, a
		if !a.admits(now, p.rand) {
			return a, nil
		}
	} else if b.admits(now, p.rand) {
		return a, b
	}
	if len(p.instances) == 2 {
		return a, nil
	}
	c, d := p.draw() // one of them is neither a nor b, unless they are the same two
	if c == a || c == b {
		c = d
	}
	if c == a || c == b || !c.admits(now, p.rand) {
		return a, nil
	}
	return a, c
}

// draw returns two different instances, each pair as likely as another, in any order.
func (p *twoChoices) draw() (a, b *Instance) {
	n, r := uint64(len(p.instances)), p.rand()
	i, j := (r>>32)*n>>32, (r&0xffffffff)*(n-1)>>32
	if j >= i {
		j++
	}
	return p.instances[i], p.instances[j]
}

func score(f figures, inFlight int) float32 {
	succeeds := 1 - f.failing
	return f.latency * float32(inFlight+1) / (succeeds * succeeds)
}
