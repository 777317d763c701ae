// Command bench measures Bannou beside the raw libraries underneath, in one run, and writes docs/benchmarks.md.
//
// Every benchmark of the package pairs, which has two variants, .../raw and .../bannou, becomes a row: the medians of
// several runs of both, taken in turn, and their ratio. The node itself is measured from outside: from the start of the process to
// its readiness, and its memory when idle.
package main
