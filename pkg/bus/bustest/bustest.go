// Package bustest is the conformance suite that every driver of package bus passes.
package bustest

import (
	"testing"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Setup is one case's broker, empty of queues and messages.
type Setup struct {
	// Node returns a driver that is connected to the case's broker; each call is another node of the same broker. The
	// caller of Run closes it when the test that asked for it ends (t.Cleanup).
	Node func(t testing.TB) bus.Driver
	// Config is what buses on this broker are made with: exchange names, where they differ from the defaults.
	Config bus.Config
}

// Features is what a driver can do beyond what every driver must.
type Features struct {
	// Priorities: a message of higher priority overtakes those waiting in its queue.
	Priorities bool
	// Expiration: an expired message goes to the dead-letter exchange with the reason "expired" and the contract's
	// headers while nobody reads its queue.
	Expiration bool
	// DeadLetterStore is the name of the queue that keeps dead letters, where the driver declares one.
	DeadLetterStore string
}

// Run runs every case, each on a fresh Setup.
func Run(t *testing.T, setup func(t testing.TB) Setup, f Features) {}

// RunWatermill runs Watermill's own suite for publishers and subscribers on those of a bus.
func RunWatermill(t *testing.T, setup func(t testing.TB) Setup) {}
