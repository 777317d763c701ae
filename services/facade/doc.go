// Package facade serves Dapr's HTTP API (/v1.0/…), and its gRPC API, on the native libraries, for one app: an app that uses a Dapr SDK drops its sidecar by
// talking to another port.
//
// Like a sidecar, a facade stands beside one app. It keeps the app's state in stores of package state, publishes and delivers its events over
// package bus, and passes its calls on through package mesh. What it serves follows Dapr 1.14 in paths, statuses and bodies; where Dapr
// loses data or hides a failure, the facade does not: docs/dapr.md has the list, and a suite that runs against both holds it true.
//
// Events travel as Bannou's own: the body is the data alone, and the attributes of the CloudEvent are a header, so that a native subscriber
// reads an event of a Dapr app like any other. Subscribers behind a facade get the envelope, byte for byte with the data that was published; events
// of native publishers get one made for them.
//
// Components and subscriptions may be given in Dapr's YAML files (Load). A kind of component that there is no native driver for is an error
// that names it.
package facade
