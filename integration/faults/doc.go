// Package faults harms a server while a bus or a store is under load, and counts what became of each event: sent, confirmed,
// handled, handled twice, lost; and of each write: acknowledged, refused, unknown, lost. Each harm is a test of this package.
// `make faults` runs them long and writes docs/faults.md.
//
// A [Load] publishes and handles, a [Ledger] counts, a [Meter] tells how fast, a [Row] is what the page says of one fault. For
// stores they are [StateLoad], [StateLedger] and [StateRow].
package faults
