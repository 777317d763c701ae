// Package compose shows that the suite of compose/ works where it is to run: in containers. It speaks to a Compose project through the
// command line of Docker, and to the nodes over the ports that they publish. `make compose-test` runs it; without that, its tests are
// skipped.
package compose
