// Package rabbitbus is RabbitMQ as a driver for package bus.
package rabbitbus
