// Package state keeps JSON values by key, with optimistic concurrency, in Redis, MySQL, SQLite or memory.
//
// A Factory is configured with named stores, each kept by one driver (redisstate, mysqlstate, sqlitestate,
// memorystate). A program opens a store by name and with the type of its values, and cannot tell which engine keeps it:
//
//	accounts, err := state.Open[Account](ctx, factory, "accounts")
//	etag, err := accounts.Save(ctx, "a-1", Account{Name: "Ada"})
//	etag, err = accounts.TrySave(ctx, "a-1", changed, etag) // ErrConflict if somebody was faster
//
// All engines pass one conformance suite, package statetest. What holds on each of them:
//
//   - Every change of a key is one atomic step. Compare-and-set (TrySave, TryDelete) is linear per key; concurrent
//     unconditional saves all succeed.
//   - An ETag is never used twice for a key, not after a delete, not after an expiry, and not for equal content.
//   - A save sets the key's expiry or keeps it, as asked (Expiry). An expired key is gone at once, for every method.
//   - Transact makes all its changes or none, also when one of its conditions fails.
//   - Numbers survive to the digit. With T = jsontext.Value a store passes JSON through byte for byte, but for the names of members on
//     MySQL: those are written with no escapes but the ones that they need.
//   - A stored value that cannot be read is ErrCorrupt, never an absent key.
//   - A Lock has one holder at a time, and a holder that is late cannot write what it guards.
//   - Where a store announces its changes on MySQL or SQLite, a change and its entry in the outbox are one (Announce).
//   - A write that was sent and not answered is ErrOutcomeUnknown. It is never repeated behind the caller's back.
//
// Where the engine can, values are found by what is in them (OpenQueryable), in any order, page by page:
//
//	active := state.Where("status").Eq("active").And(state.Where("level").Gte(10))
//	for entry, err := range accounts.All(ctx, state.Query{Filter: active, Sort: []state.Sort{{Field: "name"}}}) {
//
// What engines do differently is declared: queries (OpenQueryable) exist on MySQL and SQLite; a Transact on Redis needs
// keys that share a hash tag; a change on MySQL and SQLite that is under way when its key expires may still find it.
package state
