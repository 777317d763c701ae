// Package relay sends the events that wait in an outbox: those that the messaging service keeps while the broker is away,
// and those that stores write together with their changes.
//
// A relay claims some of them for the time of a lease, hands them to the bus many at a time, deletes those that the broker
// has confirmed, and gives back what it could not send. Every event arrives at least once, whatever is killed meanwhile; a
// second arrival has the same id. Events of one key arrive in order. What a broker will never take is set aside in the
// table with the reason, and what has expired or cannot be routed goes to the dead letters. Several relays, in this process
// or in others, may send one outbox.
package relay
