// Package rabbitbus is RabbitMQ as a driver for package bus, directly over amqp091.
//
// One connection publishes and one consumes, so that a broker that is short of memory, and therefore reads nothing more
// from publishers, still takes acknowledgements. A reading of dead letters has a third, for its time. Each connects again by itself, and declares all that this driver has
// declared: a broker may come back empty.
//
// Several addresses are the nodes of one cluster. Both connections begin with the same one, chosen at random, so that many
// programs spread over the nodes and each depends on one of them; from there on each takes the next whenever it is lost or
// cannot connect, and pauses only when all have failed in a row. An attempt takes DialTimeout at most. A node that says
// nothing is given up after three heartbeats; moving to another asks nothing of the cluster that the silent node would have
// to answer, but for queues that go with their consumers: those are declared when RabbitMQ has given it up too, after
// net_ticktime. A message that the broker does not take (nack), as while a quorum queue has no leader, is sent again, on
// another channel: RabbitMQ 3.10 goes on refusing on the one that has met the dead leader.
//
// Publishing goes over one channel in confirm mode that all callers share; each waits for its own confirmation. Nothing
// waits in a system call: a socket of our own takes writes into memory, one goroutine sends them on, and publishers
// wait for room with their contexts. A message whose connection is lost before it was confirmed is sent again with the
// same id, so a subscriber may see it twice.
//
// On the broker are: the durable topic exchanges of the configuration; the dead-letter store, bound to "dead-letter.#";
// a durable queue for each durable subscription; an exclusive, auto-delete queue for each dynamic one; and a delay
// queue for each delay of each queue that has had one, delays being rounded up to some forty steps. Retry
// moves a message to the delay queue, and the broker moves it back when its time has come. Delay queues of durable
// queues, {queue}.later.{ms}, are quorum queues, whatever Config.QueueType says, because only those hand over with confirmation:
// no delayed message is lost when the broker is killed. That needs RabbitMQ 3.10. They stay until DeleteQueue removes
// their queue, since a quorum queue that expires does so while it is in use. Those of durable queues that expire ({queue}.later.{ms} too), and
// of queues that go with their consumer ({queue}.delay.{ms}), are classic ones, and go some time after their last use: the delay, the time in
// which the queue expires, and an hour. What a message is when it comes back is told by
// headers named bannou-*; all that this driver writes are strings, so that stock Watermill programs can read them. The
// broker's own x-death, which a message that was delayed carries, is a table, which those cannot read: they should not
// share a queue with a bus.
//
// Beside each of the two exchanges is its mark, {exchange}.mark, which goes when the exchange is deleted; drivers look for it,
// and tell one another through the exchange {exchange}.topology to bind their queues again.
//
// What expires in a queue is dead-lettered by the broker itself, under "dead-letter.{topic}", or "dead-letter.{queue}"
// for a queue with a pattern or several bindings, and with its account x-death alone; this driver reads that back as
// the headers of package bus. A message that was retried does not expire any more: its attempts are counted instead.
//
// The dead-letter store keeps 100 000 messages for 7 days. What it drops beyond that goes to the queue {store}.dropped,
// where the nodes count it (bannou.rabbitbus.dropped, by reason), log it and remove it. A store that an earlier version
// made has no such way out: it is used as it is, with a warning, and what it drops is not counted.
package rabbitbus
