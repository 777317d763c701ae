// Package migration is the service that answers `bannou migrate`: what of a node is on Dapr and what is native, what comparing both ways
// has found, whether it is safe to switch, and decisions about single items (a store, a service's messaging, calls to a target).
//
// A decision is a line in a File that the node reads when it starts. It changes nothing in a node that runs, and counts less than
// any setting: what the settings say and what was decided is always shown together, so that there are never two truths unsaid.
package migration
