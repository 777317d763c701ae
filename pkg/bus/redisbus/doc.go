// Package redisbus holds the wire format of Redis Streams as a broker for package bus: how a message is written into a
// stream's entry, and how it is read from one.
//
// The format is that of watermill-redisstream, so that a stock program reads what the bus writes and writes what the bus
// reads. What a message has beyond id, headers and body travels as metadata under keys that begin with "_bannou_".
package redisbus
