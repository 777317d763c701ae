// Package redisstate is the state driver for Redis 6.2 and later (and what speaks its protocol), single, with Sentinel,
// or as a cluster.
//
// Each key of a store is one hash, "{prefix}:{key}", with the fields data (JSON), version, createdAt, updatedAt (RFC
// 3339, UTC), nonce and expiry; when it expires is the hash's. The fields data and version are those of Dapr's Redis store,
// so that a store can be switched in place and back. A nonce is drawn for each save; an ETag is "{version}-{nonce}", so that
// it does not come again although versions do, after a delete, an expiry or a failover that lost writes. A hash that Dapr
// made has no nonce until its first save here; its ETag is its version alone. The field expiry says for which version it
// holds, and then when the hash expires by the server's clock ("12 1764087501234", milliseconds since 1970) or "never": with
// it a read is one command. For another version it says nothing: somebody else has written since, and Redis is asked. An
// EXPIRE or PERSIST of somebody who writes nothing takes effect, but shows only after the next save.
//
// With a prefix that ends in "||" the hashes are those of an app of Dapr. Before such a store is used, a thousand keys of the database are looked at:
// rows of actors, and values that Dapr has encrypted, are refused, and a value that was encrypted later when it is read.
//
// Every change of a key is made by one run of a Lua script, and nothing else changes it. On a server that is no cluster, one
// run may make the changes of several callers, or of a bulk call, each by itself. Transact is one run over several keys, which
// must share a hash tag ("{order-7}:lines"), also on a single server, so that a program works on a cluster as well.
//
// Concurrent calls for one key each share round trips: a caller who is alone goes at once; while two round trips of reads, or
// two of writes, are under way to a server, further ones wait for one of them and then go together, up to 128. Each keeps its
// own deadline, answer and error.
//
// A write is sent once. If it was sent and not answered it is state.ErrOutcomeUnknown; if it was not sent by the time its
// caller leaves, it is state.ErrUnavailable, and is not sent later. Reads are repeated once. A call ends by its context's
// deadline, or by Config.Timeout if that is earlier; behind calls that hang it may take twice the Timeout.
//
// Redis replicates asynchronously: a failover can lose writes that were acknowledged.
package redisstate
