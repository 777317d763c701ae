package mesh

import "time"

// SetClock gives a registry another clock, as another machine has.
func (r *Registry) SetClock(now func() time.Time) {
	r.now = func() time.Time { return now().Round(0).UTC() }
}

// Remembered is of how many instances the directory knows that they left.
func (d *Directory) Remembered() int { return len(d.current.Load().left) }
