// Package pairs holds the benchmarks that set Bannou beside the library underneath it. Each measures one piece of work
// twice, as .../raw and as .../bannou: the same server with the same durability, the same values coded and checked, the
// same number of callers. A lost, doubled or wrong result fails the benchmark.
//
// `make bench` runs them and writes docs/benchmarks.md; one alone is run by
//
//	go test -run '^$' -bench 'Redis/get' ./bench/pairs
package pairs
