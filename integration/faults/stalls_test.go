package faults

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The time in which a process did not run is not time that its calls had.
func TestStalls(t *testing.T) {
	begin := time.Now()
	at := func(milliseconds int) time.Time { return begin.Add(time.Duration(milliseconds) * time.Millisecond) }
	for _, c := range []struct {
		name                string
		ran                 []int
		deadline, now, want int
	}{
		{"nobody watches", nil, 0, 500, 500},
		{"before the deadline", []int{0, 10}, 15, 12, -3},
		{"it ran all the time", []int{0, 10, 22, 31}, 10, 35, 25},
		{"a stall after the deadline", []int{0, 10, 1020, 1030}, 5, 1035, 30},
		{"a stall that the deadline lies in", []int{0, 10, 1020, 1030}, 500, 1035, 15},
		{"a stall before the deadline", []int{0, 10, 1020, 1030}, 1025, 1035, 10},
		{"two stalls", []int{0, 10, 1020, 1030, 1540, 1550}, 0, 1555, 55},
		{"a stall that nobody has seen the end of", []int{0, 10}, 5, 1000, 15},
		{"a stall that goes on after the call", []int{0, 10, 510, 1510}, 500, 505, 0},
		{"a deadline in it", []int{0, 10}, 500, 1000, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s stalls
			for _, now := range c.ran {
				s.ran(at(now))
			}
			require.EqualValues(t, c.want, s.overdue(at(c.deadline), at(c.now)).Milliseconds())
		})
	}
}
