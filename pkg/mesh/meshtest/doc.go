// Package meshtest checks that a [mesh.Table] and a [mesh.Feed] keep their contracts, and has plain ones in memory for
// tests.
package meshtest
