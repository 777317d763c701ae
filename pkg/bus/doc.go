// Package bus publishes events and hands them to handlers, over RabbitMQ or in memory, on a Watermill router.
package bus
