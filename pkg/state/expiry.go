package state

import (
	"fmt"
	"time"
)

// An Expiry says when a saved key disappears. The zero value is the store's DefaultTTL where one is configured, and
// otherwise Keep.
//
// Expiries have millisecond resolution; a fraction of a millisecond is rounded up.
type Expiry int64 // milliseconds when positive

// Fixed expiries. A duration is given with After.
const (
	// Keep leaves the expiry that the key has. A new key never expires.
	Keep Expiry = -1

	// Never removes the expiry that the key has, if any.
	Never Expiry = -2

	invalidExpiry Expiry = -3
)

// After returns the expiry of a key that disappears d after it is saved. It counts from the moment the engine makes the
// change. A save with a d that is not positive fails with ErrInvalid.
func After(d time.Duration) Expiry {
	if d <= 0 {
		return invalidExpiry
	}
	ms := d / time.Millisecond
	if d%time.Millisecond != 0 {
		ms++
	}
	return Expiry(ms)
}

// TTL returns the duration of an expiry made by After, in whole milliseconds, and false for the others.
func (e Expiry) TTL() (time.Duration, bool) {
	if e <= 0 {
		return 0, false
	}
	return time.Duration(e) * time.Millisecond, true
}

// String is for logs and test failures.
func (e Expiry) String() string {
	switch {
	case e > 0:
		return fmt.Sprintf("after %v", time.Duration(e)*time.Millisecond)
	case e == Keep:
		return "keep"
	case e == Never:
		return "never"
	case e == 0:
		return "default"
	default:
		return "invalid"
	}
}

// resolve replaces the zero value by what the store's configuration says, so that drivers see only Keep, Never and
// durations.
func (e Expiry) resolve(defaultTTL time.Duration) (Expiry, error) {
	switch {
	case e > maxExpiry || e < Never:
		return 0, fmt.Errorf("%w: the expiry must lie between a millisecond and 100 years from now", ErrInvalid)
	case e != 0:
		return e, nil
	case defaultTTL > 0:
		return After(defaultTTL), nil
	default:
		return Keep, nil
	}
}

// maxExpiry keeps every instant of expiry within what all engines can write down.
const maxExpiry = Expiry(100 * 366 * 24 * time.Hour / time.Millisecond)
