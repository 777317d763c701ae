// Package redisstate is the state driver for Redis 6.2 and later (and what speaks its protocol), single, with Sentinel,
// or as a cluster.
//
// Each key of a store is one hash, "{prefix}:{key}", with the fields data (JSON), version, createdAt, updatedAt (RFC
// 3339, UTC) and nonce; its expiry is the hash's. The fields data and version are those of Dapr's Redis store, so that a
// store can be switched in place and back. The nonce is drawn when the hash comes into being; an ETag is
// "{version}-{nonce}", so that it does not come again although versions do. A hash that Dapr made has no nonce until its
// first save here; its ETag is its version alone.
//
// Every change of a key is one Lua script that touches that key, and nothing else changes it. Bulk calls are pipelines of
// such scripts. Transact is one script over several keys, which must share a hash tag ("{order-7}:lines"), also on a
// single server, so that a program works on a cluster as well.
//
// A write is sent once. If its connection breaks before the answer, it is state.ErrOutcomeUnknown; reads are repeated
// once. A call ends by its context's deadline, or by Config.Timeout if that is earlier.
//
// Redis replicates asynchronously: a failover can lose writes that were acknowledged.
package redisstate
