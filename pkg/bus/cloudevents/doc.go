// Package cloudevents knows what of CloudEvents (1.0, in the JSON format) all ways to Dapr's events share: that over a sidecar, that over its
// broker, and the facade of its API. On the bus an event of Dapr is its data, with its attributes beside it as headers, so that an app gets the
// envelope as its publisher made it, and the data to the byte.
package cloudevents
