package statetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A Promise is one of those of package state that a driver over another system's API may be unable to keep. The native drivers keep all of them.
type Promise string

// The promises that a driver may declare as missing, in Features.Missing.
const (
	// Text: a value comes back byte for byte. Without it, as the same JSON.
	Text Promise = "text"
	// Numbers: every number is kept. Without it, one that would not be is refused with ErrInvalid.
	Numbers Promise = "numbers"
	// Versions: a key's version counts its saves.
	Versions Promise = "versions"
	// Times: a key tells when it was made and changed.
	Times Promise = "times"
	// ExpiryTold: a read tells when the key expires.
	ExpiryTold Promise = "expiry told"
	// Milliseconds: expiries are kept to the millisecond. Without it, to the second, and never earlier than asked.
	Milliseconds Promise = "milliseconds"
	// Counting: Len counts keys. Without it, it is ErrUnsupported.
	Counting Promise = "counting"
	// FreshETags: no ETag comes twice for a key. Without it, they may after a delete or an expiry.
	FreshETags Promise = "fresh ETags"
	// ToldETags: a save tells the ETag that the key got from it, also when others save at once. Without it, it may tell one that no key has.
	ToldETags Promise = "told ETags"
	// Conditions: Transact takes conditions. Without it, conditions on several keys are ErrUnsupported.
	Conditions Promise = "conditions in transactions"
	// OneLine: calls of several clients form one line whatever they mix. Without it, a save with the ETag of a key that is being deleted may
	// bring it back, and of two that delete at once both may say that they did.
	OneLine Promise = "one line"
	// AllKeys: every key of package state is a key here. Without it, those that the system cannot name are refused with ErrInvalid.
	AllKeys Promise = "all keys"
	// DistinctKeys: keys that differ in a byte are different keys. Without it, those that differ in case, accents or blanks may be one.
	DistinctKeys Promise = "distinct keys"
)

// promises are all of them, in the order of the table.
func promises() []Promise {
	return []Promise{Text, Numbers, Versions, Times, ExpiryTold, Milliseconds, Counting, FreshETags, ToldETags, Conditions, OneLine, AllKeys, DistinctKeys}
}

// keeps reports whether the driver keeps a promise.
func (s *suite) keeps(p Promise) bool {
	_, missing := s.features.Missing[p]
	return !missing
}

// needs skips a case that is about what is declared as missing, and says why it is.
func (s *suite) needs(t *testing.T, all ...Promise) {
	t.Helper()
	for _, p := range all {
		if why, missing := s.features.Missing[p]; missing {
			t.Skipf("declared as missing: %s: %s", p, why)
		}
	}
}

// Table is what drivers do not keep, as rows of a Markdown table with a column for each driver: a cell is "kept", or the reason.
func Table(drivers []string, features []Features) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| promise | %s |\n|%s\n", strings.Join(drivers, " | "), strings.Repeat(" --- |", len(drivers)+1))
	for _, p := range promises() {
		cells := make([]string, len(features))
		for i, f := range features {
			cells[i] = "kept"
			if why, missing := f.Missing[p]; missing {
				cells[i] = why
			}
		}
		fmt.Fprintf(&b, "| %s | %s |\n", p, strings.Join(cells, " | "))
	}
	return b.String()
}

// checkDeclared refuses declarations that say nothing.
func checkDeclared(t *testing.T, f Features) {
	t.Helper()
	for p, why := range f.Missing {
		if !slices.Contains(promises(), p) || why == "" {
			t.Fatalf("%q is declared as missing because %q: name a promise, and a reason", p, why)
		}
	}
}
