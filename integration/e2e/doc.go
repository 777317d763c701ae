// Package e2e runs the built binary and speaks to it as its users do, in every shape in which it can be deployed.
package e2e
