// Package redisbus is Redis Streams as a driver for package bus.
//
// A topic is a stream of its name, written as watermill-redisstream writes it, so that a stock program reads what the bus
// writes and writes what the bus reads. What a message has beyond id, headers and body travels as metadata under keys
// that begin with "_bannou_". What is published to another exchange lies in one stream of that exchange, whatever its
// key, and readers pass over what they do not want.
//
// A queue is a consumer group of its name on each stream that it reads, and a stream of its own for what is for it alone:
// what was given back, what comes again after a delay, what is replayed. A queue that is exclusive and goes with its
// consumer, as a session's does, has no group and no connection: shared readers read for all of them, and what it is to
// see again waits in the process.
//
// A stream is trimmed below what the slowest group has handled, never by length, and never what is younger than
// Config.Grace. What a session misses that is slower is counted in bannou.redisbus.dropped. How far each group has come is
// recorded every Config.Upkeep, so that one that is lost begins again there and repeats at most what came since. A
// delivery in work is kept claimed by its process; what a process left that died is taken over after Config.ClaimIdle. An
// entry that is no message goes to the dead letters, its fields kept.
//
// What is given back comes again before what is new, and in the order in which it was given back; priorities are not a
// feature. Redis answers before its replicas have a write: a failover can lose what was confirmed, unless
// Config.WaitReplicas says to wait for them. A Redis Cluster is not supported, because one command waits for many streams;
// Sentinel is.
package redisbus
