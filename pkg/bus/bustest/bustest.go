package bustest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Setup is one case's broker.
type Setup struct {
	// Node returns a driver that is connected to the case's broker; each call is a further node. Setup's maker closes
	// it when the test ends (t.Cleanup), which is after the suite has closed the buses on it. One driver may be given
	// several times.
	Node func(t testing.TB) bus.Driver
	// Config is what buses on this broker are made with: the exchanges' names, where they are not the defaults. The
	// suite sets retries and timeouts itself.
	Config bus.Config
}

// Features is what a driver can do beyond what every driver must.
type Features struct {
	// Priorities: a message of higher priority overtakes those that wait in its queue.
	Priorities bool
	// Expiration: an expired message goes to the dead-letter exchange with the reason "expired" and its history, also
	// while nobody reads its queue.
	Expiration bool
	// Missing are cases by their names that the driver cannot pass, each with the reason: what its broker does not do.
	Missing map[string]string
	// DeadLetterStore is the queue that keeps dead letters, where the driver declares one.
	DeadLetterStore string
}

// A testCase is one promise. Why says what a user loses when it is broken; it is printed when it is.
type testCase struct {
	name string
	why  string
	run  func(f *fixture)
	need func(Features) bool // nil: every driver must
}

// cases are all of them.
func cases() (all []testCase) {
	for _, list := range [][]testCase{publishing(), handling(), failing(), subscribing(), lifecycle(), wire(), forwarding(), letters(), replaying(), plainWatermill()} {
		all = append(all, list...)
	}
	return all
}

// Table is what drivers keep, beside native ones, which keep everything, as rows of a Markdown table.
func Table(drivers []string, features []Features) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| case | %s | native |\n|%s\n", strings.Join(drivers, " | "), strings.Repeat(" --- |", len(drivers)+2))
	for _, c := range cases() {
		fmt.Fprintf(&b, "| %s |", c.name)
		for _, f := range features {
			fmt.Fprintf(&b, " %s |", f.cell(c))
		}
		fmt.Fprintln(&b, " kept |")
	}
	return b.String()
}

// cell is what a driver does of a case.
func (f Features) cell(c testCase) string {
	if why, missing := f.Missing[c.name]; missing {
		return "missing: " + why
	}
	if c.need != nil && !c.need(f) {
		return "missing: not a feature of it"
	}
	return "kept"
}

// Run runs every case, each with a Setup of its own. Queues and topics have names that no other case uses, so that the
// Setups may be one broker.
func Run(t *testing.T, setup func(t testing.TB) Setup, features Features) {
	all := cases()
	for name, why := range features.Missing {
		if why == "" || !slices.ContainsFunc(all, func(c testCase) bool { return c.name == name }) {
			t.Fatalf("%q is declared as missing because %q: name a case, and a reason", name, why)
		}
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			if c.need != nil && !c.need(features) {
				t.Skip("not a feature of this driver")
			}
			if why, missing := features.Missing[c.name]; missing {
				t.Skip("declared as missing: " + why)
			}
			t.Cleanup(func() {
				if t.Failed() {
					t.Log("why it matters: " + c.why)
				}
			})
			c.run(newFixture(t, setup(t), features))
		})
	}
}
