// Package state keeps JSON values by key, with optimistic concurrency, in Redis, MySQL, SQLite or memory.
package state
