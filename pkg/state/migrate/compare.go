package migrate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// tolerance is how far the expiries of a key may lie apart in the two places: it takes time to carry one, and servers' clocks differ.
const tolerance = 2 * time.Second

// difference says in which way one record is not as another, or nothing. Two records are equal when their values are the same JSON, to
// the digit and in the same order, and their expiries the same time but for the tolerance. How a string or a member's name is escaped,
// and white space, do not count: engines may write them anew.
func difference(should, is state.Record) string {
	switch {
	case should.Found && !is.Found:
		return "missing"
	case !should.Found && is.Found:
		return "left over"
	case !should.Found:
		return ""
	case !bytes.Equal(should.Value, is.Value) && !bytes.Equal(canonical(should.Value), canonical(is.Value)):
		return "another value"
	case should.ExpiresAt.IsZero() != is.ExpiresAt.IsZero() || should.ExpiresAt.Sub(is.ExpiresAt).Abs() > tolerance:
		return "another expiry"
	default:
		return ""
	}
}

// canonical is a JSON value in the shortest form, strings escaped as little as can be, numbers as they are written.
func canonical(value []byte) []byte {
	out, err := jsontext.AppendFormat(nil, value)
	if err != nil {
		return value // no JSON: what it is then is all there is to compare
	}
	return out
}

// A Checksum is one of a set of keys with their values and expiries, whatever the order they are met in.
type Checksum [2]uint64

// String is for people to compare.
func (c Checksum) String() string { return fmt.Sprintf("%016x%016x", c[0], c[1]) }

// add takes a record in. Expiries count to the second.
func (c *Checksum) add(r state.Record, expiresAt time.Time) {
	h := sha256.New()
	var n [8]byte
	for _, part := range [][]byte{[]byte(r.Key), canonical(r.Value)} {
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	if !expiresAt.IsZero() {
		binary.BigEndian.PutUint64(n[:], uint64(expiresAt.Unix()))
		h.Write(n[:])
	}
	sum := h.Sum(nil)
	low, carry := bits.Add64(c[1], binary.BigEndian.Uint64(sum[8:]), 0)
	high, _ := bits.Add64(c[0], binary.BigEndian.Uint64(sum), carry)
	*c = Checksum{high, low}
}

// A Difference is a key that is not the same in both places.
type Difference struct {
	Key  string `json:"key"`
	What string `json:"what"` // of the new place: "missing", "left over", "another value", "another expiry", "cannot be read"
}

// A Comparison is what was found in two places.
type Comparison struct {
	FromKeys     int64        `json:"fromKeys"`
	ToKeys       int64        `json:"toKeys"`
	FromChecksum Checksum     `json:"-"`
	ToChecksum   Checksum     `json:"-"`
	Different    int64        `json:"different"`   // keys that are not the same, and are not being written
	Busy         int64        `json:"busy"`        // keys that were written again and again while they were looked at
	Differences  []Difference `json:"differences"` // of the different keys, the first ones
}

// Equal reports that nothing was found to be different or undecided, and that counts and checksums agree.
func (c *Comparison) Equal() bool {
	return c.Different == 0 && c.Busy == 0 && c.FromKeys == c.ToKeys && c.FromChecksum == c.ToChecksum
}

// looks is how often a key that differs is looked at: it may be being carried.
const looks = 6

// patience is how long after the look before the next one comes.
func patience(look int) time.Duration {
	return []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond, time.Second}[look-1]
}

// A comparer compares two places key by key.
type comparer struct {
	from, to state.Engine
	most     int // differences that are listed
	found    Comparison
}

// keys compares some keys and returns those that differ.
func (c *comparer) keys(ctx context.Context, keys []string) (differ []string, err error) {
	before := map[string][2]string{} // ETags of keys that differed in the last look
	what := map[string]string{}
	for round, left := 0, keys; len(left) > 0; round++ {
		if round > 0 && !wait(ctx, patience(round)) {
			return nil, context.Cause(ctx)
		}
		from, refusedFrom, err := get(ctx, c.from, left)
		if err != nil {
			return nil, err
		}
		to, refusedTo, err := get(ctx, c.to, left)
		if err != nil {
			return nil, err
		}
		for _, r := range append(refusedFrom, refusedTo...) {
			what[r.Key] = "cannot be read"
		}
		left = left[:0:0]
		last := round == looks-1
		for key, a := range from {
			b, readable := to[key]
			if !readable || what[key] == "cannot be read" {
				continue
			}
			d := difference(a, b)
			seen, etags := before[key], [2]string{a.ETag, b.ETag}
			switch before[key] = etags; {
			case d == "" || goes(a, b):
				c.count(a, b, d != "")
			case !last:
				left = append(left, key)
			case seen != etags: // somebody writes it
				c.count(a, b, false)
				c.found.Busy++
				differ = append(differ, key)
			default:
				c.count(a, b, false)
				what[key] = d
			}
		}
	}
	for key, d := range what {
		differ = append(differ, key)
		c.found.Different++
		if len(c.found.Differences) < c.most {
			c.found.Differences = append(c.found.Differences, Difference{key, d})
		}
	}
	return differ, nil
}

// goes reports a key that is gone in one place and about to go in the other.
func goes(a, b state.Record) bool {
	left := a
	if b.Found {
		left = b
	}
	return a.Found != b.Found && !left.ExpiresAt.IsZero() && time.Until(left.ExpiresAt) < tolerance
}

// count takes a key into counts and checksums, or leaves it out where it is going.
func (c *comparer) count(from, to state.Record, going bool) {
	if going {
		return
	}
	if from.Found {
		c.found.FromKeys++
		c.found.FromChecksum.add(from, from.ExpiresAt)
	}
	if to.Found {
		expires := to.ExpiresAt
		if from.Found && !expires.IsZero() && from.ExpiresAt.Sub(expires).Abs() <= tolerance {
			expires = from.ExpiresAt // the same, within the tolerance
		}
		c.found.ToKeys++
		c.found.ToChecksum.add(to, expires)
	}
}

// wait returns false when ctx ends before d has passed.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
