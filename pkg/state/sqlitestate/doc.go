// Package sqlitestate keeps the stores of package state in one SQLite file, inside the process: nothing else to run,
// and queries as on MySQL.
//
// Every acknowledged change is on disk (WAL with synchronous=FULL): it survives the end of the process at any moment,
// and the loss of power if the disk keeps what it was told to. All changes go through one connection, one after
// another, and those of callers who wait at the same time share a transaction; reads have connections of their own, which never wait for a change. The file belongs to one process at a
// time in normal use; that another opens it too is safe, only slow.
package sqlitestate
