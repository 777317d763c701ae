// Package bustest is the conformance suite of package bus: what the bus promises, as tests that every driver passes.
// A driver's own tests call Run, and RunWatermill, with a broker to run on; what a driver cannot do it says in
// Features.
//
// Nothing here stops or breaks a broker: faults are for tests that own their servers.
package bustest
