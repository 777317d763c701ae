package bus

import "sync/atomic"

// maxParked is how many goroutines a bus keeps for its next deliveries.
const maxParked = 64

// workers are goroutines that read sources. Those that have nothing to do are kept for a while: a new goroutine begins
// with a small stack, and growing it to what decoding an event needs cost a quarter of a delivery's time.
type workers struct {
	jobs   chan job
	parked atomic.Int64
	closed chan struct{}
}

// A job is to read a source, from its next delivery on.
type job struct {
	source   *source
	consumer Consumer
}

func newWorkers() *workers {
	return &workers{jobs: make(chan job), closed: make(chan struct{})}
}

// do gives a job to a goroutine that is parked, or to a new one. It does not wait.
func (w *workers) do(j job) {
	select {
	case w.jobs <- j:
	default:
		go w.work(j)
	}
}

func (w *workers) work(j job) {
	for {
		j.source.read(j.consumer)
		if w.parked.Add(1) > maxParked {
			w.parked.Add(-1)
			return
		}
		select {
		case j = <-w.jobs:
			w.parked.Add(-1)
		case <-w.closed:
			return
		}
	}
}

// close sends home those that are parked, and those at work when they are done.
func (w *workers) close() { close(w.closed) }
