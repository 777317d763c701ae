// Package messaging is the service that offers the bus over HTTP: publish, subscribe with a callback, follow a topic.
//
// A callback subscription is a queue of its own, so that a slow callback delays nobody else. A durable one is also a
// record in a store: after a restart the service reads the records and goes on with the queues, which kept what came
// meanwhile. Several instances may share the store; they then compete for the events of each durable subscription.
package messaging
