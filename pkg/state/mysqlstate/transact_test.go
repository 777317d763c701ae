package mysqlstate

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Changes that share a transaction leave a row as they would have left it one after the other, each in a transaction of
// its own: seen by callers (outcomes), and by what is written.
func TestRowAsOneAfterTheOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		together := drawRow(t)
		apart := *together
		etags := []string{together.etag, "never was"}
		created := false // anew, at some point
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			c := drawChange(t, etags)
			got := together.apply(&c)

			// Apart, each change finds what the one before has written.
			present, version := apart.present, apart.version
			want := apart.apply(&c)
			require.Equal(t, want.Done, got.Done)
			require.Equal(t, want.Conflict, got.Conflict)
			require.Equal(t, want.Absent, got.Absent)
			require.Equal(t, want.Version, got.Version)
			if got.Done && !c.Delete {
				etags = append(etags, got.ETag)
				created = created || !present
				if present {
					require.Equal(t, version+1, got.Version)
				} else {
					require.EqualValues(t, 1, got.Version)
				}
				apart.etag = got.ETag
				if c.Expiry != state.Keep || !present {
					apart.keeps, apart.toLive = false, toLive(&c)
				}
			}
			apart.changed = false // it was written, with its expiry
			if apart.present && c.Expiry == state.Keep && got.Done && !c.Delete && present {
				apart.keeps = together.keeps
				apart.toLive = together.toLive
			}
		}
		require.Equal(t, apart.present, together.present)
		require.Equal(t, apart.etag, together.etag)
		require.Equal(t, apart.version, together.version)
		require.Equal(t, apart.value, together.value)

		b := batch{engine: &engine{store: "s"}}
		b.add("k", together)
		written := len(b.inserts) + len(b.setting) + len(b.keeping)
		switch {
		case !together.changed:
			require.Zero(t, written+len(b.removes))
		case !together.present:
			require.Zero(t, written)
			require.Equal(t, together.stored, len(b.removes) == 1)
		default:
			require.Equal(t, 1, written)
			require.False(t, created && len(b.keeping) > 0, "a row that was created anew keeps nothing of the one before")
			require.Equal(t, !together.stored || len(b.removes) == 1, len(b.inserts) == 1)
			require.False(t, created && together.stored && together.version > 1 && len(b.removes) == 0, "nor when it was created")
		}
	})
}

func drawRow(t *rapid.T) *row {
	if !rapid.Bool().Draw(t, "stored") {
		return &row{}
	}
	return &row{stored: true, present: rapid.Bool().Draw(t, "present"), etag: "first", version: 7}
}

func drawChange(t *rapid.T, etags []string) state.Change {
	c := state.Change{Key: "k", Delete: rapid.Bool().Draw(t, "delete"), Value: []byte(rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "value"))}
	c.Expiry = rapid.SampledFrom([]state.Expiry{state.Keep, state.Never, state.After(time.Hour)}).Draw(t, "expiry")
	c.When = rapid.SampledFrom([]state.Condition{state.Always, state.IfAbsent, state.IfETag}).Draw(t, "condition")
	if c.Delete && c.When == state.IfAbsent {
		c.When = state.Always
	}
	if c.When == state.IfETag {
		c.ETag = rapid.SampledFrom(etags).Draw(t, "etag")
	}
	return c
}

// The expiry of a row that several changes share is what the last one that named one says, and otherwise the table's.
func TestRowExpiry(t *testing.T) {
	keep, never, hour := state.Keep, state.Never, state.After(time.Hour)
	for _, c := range []struct {
		present bool
		expiry  []state.Expiry
		keeps   bool
		toLive  any
	}{
		{true, []state.Expiry{keep, keep}, true, nil},
		{true, []state.Expiry{keep, hour}, false, time.Hour.Microseconds()},
		{true, []state.Expiry{hour, keep}, false, time.Hour.Microseconds()},
		{true, []state.Expiry{hour, never, keep}, false, nil},
		{false, []state.Expiry{keep, keep}, false, nil},
		{false, []state.Expiry{hour, keep}, false, time.Hour.Microseconds()},
	} {
		r := row{stored: true, present: c.present, version: 3}
		for _, e := range c.expiry {
			r.apply(&state.Change{Value: []byte("1"), Expiry: e})
		}
		require.Equal(t, c.keeps, r.keeps, "%v", c)
		if !r.keeps {
			require.Equal(t, c.toLive, r.toLive, "%v", c)
		}
	}
	r := row{stored: true, present: true, version: 3}
	r.apply(&state.Change{Delete: true})
	r.apply(&state.Change{Value: []byte("1"), Expiry: keep})
	require.False(t, r.keeps, "what was removed had an expiry, what is created has none")
}

// Rows are written by statements of the numbers that are prepared, a few of them twice rather than apart, but never one
// that must not be there yet.
func TestRowCounts(t *testing.T) {
	rows := func(n int) [][]any { return make([][]any, n) }
	sizes := func(r *rowsStatement, n int) (sizes []int) {
		for left := rows(n); len(left) > 0; {
			part, _ := r.next(left) //nolint:sqlclosecheck // there is none
			sizes = append(sizes, len(part))
			left = left[min(len(part), len(left)):]
		}
		return sizes
	}
	replacing, inserting := &rowsStatement{repeats: true}, &rowsStatement{}
	require.Equal(t, []int{64}, sizes(replacing, 61))
	require.Equal(t, []int{32, 8}, sizes(replacing, 40))
	require.Equal(t, []int{4, 1}, sizes(replacing, 5))
	require.Equal(t, []int{2}, sizes(replacing, 2))
	require.Equal(t, []int{64, 64, 2}, sizes(replacing, 130))
	require.Equal(t, []int{32, 16, 8, 4, 1}, sizes(inserting, 61))
}
