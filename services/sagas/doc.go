// Package sagas is the service that shows the sagas of a node over HTTP, and takes what people ask of their instances: to try again, to
// compensate, to cancel. It runs the node's engine.
package sagas
