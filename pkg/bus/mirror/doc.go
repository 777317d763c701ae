// Package mirror counts events on two ways at once, so that it can be told whether subscribers on the new one would see what those on the
// old one see.
//
// A Watch reads copies of topics on two drivers, by queues of its own that take nothing from anybody, and enters each event in a Ledger by its
// id. An event that one side has seen is given some time to show on the other; then it counts as seen by both, or as missing there
// or here. An event that comes twice on one side is doubled, one that comes much later than on the other is late. The Ledger reports
// the counts of the last minutes, by topic.
package mirror
