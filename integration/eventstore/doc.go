// Package eventstore tests the event store on real servers: the suite of its engines, and that no reader misses an event.
package eventstore
