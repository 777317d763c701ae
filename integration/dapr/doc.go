// Package dapr holds Dapr's API as Bannou serves it against the real one: a suite of behaviours that runs on the facade, and on daprd where
// 'make daprd' has built one, and data that the two write for each other. Where they differ the suite says why; what it says is the table in
// docs/dapr.md.
package dapr
