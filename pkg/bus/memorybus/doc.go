// Package memorybus is a message broker in this process's memory, a driver for package bus: what the node that runs
// everything uses, and what a service's tests use.
//
// It behaves as RabbitMQ does, as far as package bus can tell: topic exchanges with "*" and "#", queues that several
// consumers share, prefetch, requeueing, delayed redelivery, expiration, priorities, durable and exclusive queues, a
// store for dead letters. Publish returns when every queue bound has the message. Watermill's gochannel, which it once
// used to carry messages to its queues, cost more than all the rest of their way.
//
// Durable means as long as the process lives. A queue is bounded: see Config.MaxQueueLength.
package memorybus
