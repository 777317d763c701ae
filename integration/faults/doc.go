// Package faults harms a broker while a bus is under load, and counts: what was sent, confirmed, handled, handled twice
// and lost. Each harm is a test; `make faults` runs them long and writes docs/faults.md.
package faults
