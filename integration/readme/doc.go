// Package readme runs what the README prints: its tour against a node of its own, and its Go program.
package readme
