// Package faults harms a server while a bus or a store is under load, and counts what became of each event: sent, confirmed,
// handled, handled twice, lost; of each write: acknowledged, refused, unknown, lost; and of each call: succeeded, failed, answered by the
// wrong app-id, made twice. Each harm is a test of this package.
// `make faults` runs them long and writes docs/faults.md.
//
// A [Load] publishes and handles, a [Ledger] counts, a [Meter] tells how fast, a [Row] is what the page says of one fault. For
// stores they are [StateLoad], [StateLedger] and [StateRow], for the mesh [MeshLoad], [MeshLedger] and [MeshRow].
package faults
