// Package migration tells the story of a migration from Dapr: four services that stand beside sidecars of a real daprd, under load, are moved one
// building block at a time, rolled back, moved again, and then run without sidecars. Each call, event and write is counted: nothing is lost.
//
// docs/migrating-from-dapr.md is the guide that it follows, and has the table that a run writes.
package migration
