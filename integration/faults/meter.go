package faults

import (
	"context"
	"fmt"
	"time"
)

const (
	// Share is how much of the rate before a harm has to come back.
	Share = 0.9
	// ClusterShare is that of a cluster: when a node was away, others lead its queues, and connections are on others too. Then
	// messages take other ways between nodes than before.
	ClusterShare = 0.6

	// window is how long a rate is measured for, each time anew.
	window = time.Second
	step   = window / 10
)

// A Meter tells how many events a second are settled: confirmed, and handled by all; or writes that are acknowledged.
type Meter struct {
	Ledger interface{ Settled() int }
	Before float64 // what Recover compares with, events a second
	// Beside is what Recover compares with in place of Before, if it is not nil: another load in the same second, that nothing was harmed of.
	Beside interface{ Settled() int }
}

// A Recovery is how a load came back.
type Recovery struct {
	Share float64       // of the rate before
	After time.Duration // from the end of the harm until a second began in which the rate was there again
	Full  bool          // the share is at least what was asked for
	// Beside: it is the share of another load's rate at the same time.
	Beside bool
}

func (r Recovery) String() string {
	said := fmt.Sprintf("%.0f %% in %.1f s", 100*r.Share, r.After.Seconds())
	if r.Beside {
		said += " beside a new one"
	}
	return said
}

// Calibrate measures the rate before a harm.
func (m *Meter) Calibrate(ctx context.Context, over time.Duration) {
	begin, count := time.Now(), m.Ledger.Settled()
	_ = Pause(ctx, over) // cut short, it is measured over less
	m.Before = float64(m.Ledger.Settled()-count) / time.Since(begin).Seconds()
}

// Recover waits until the rate of one second is at least a share of the rate before. When ctx ends first it returns the best
// that there was.
func (m *Meter) Recover(ctx context.Context, share float64) Recovery {
	type sample struct {
		at            time.Time
		count, beside int
	}
	take := func() sample {
		s := sample{at: time.Now(), count: m.Ledger.Settled()}
		if m.Beside != nil {
			s.beside = m.Beside.Settled()
		}
		return s
	}
	samples := []sample{take()}
	begin := samples[0].at
	best := Recovery{Beside: m.Beside != nil}
	for Pause(ctx, step) == nil {
		now := take()
		samples = append(samples, now)
		if len(samples) <= int(window/step) {
			continue
		}
		first := samples[len(samples)-1-int(window/step)]
		span := now.at.Sub(first.at).Seconds()
		wanted := m.Before
		if m.Beside != nil {
			wanted = float64(max(1, now.beside-first.beside)) / span
		}
		if rate := float64(now.count-first.count) / span; rate/wanted > best.Share {
			best.Share, best.After = rate/wanted, first.at.Sub(begin)
		}
		if best.Share >= share {
			best.Full = true
			return best
		}
	}
	return best
}
