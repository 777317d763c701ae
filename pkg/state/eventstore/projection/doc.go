// Package projection keeps read models of a log: what events come to, in a form that is asked for.
//
// A projection has a name, and versions of it that each have their own data: tables or keys that end or begin with the version. Readers ask
// for the live one by name:
//
//	held := projection.Definition{Name: "held", Category: "account",
//		Tables: []projection.Table{{Name: "held", Columns: "(account VARCHAR(255) PRIMARY KEY, cents BIGINT NOT NULL)"}},
//		Apply:  func(ctx context.Context, b projection.Batch) error { … "INSERT INTO " + b.Version.Table("held") … }}
//	set, err := projection.Open(ctx, log, projection.Config{Definitions: []projection.Definition{held}})
//	live, err := set.Live(ctx, "held")
//	row := db.QueryRowContext(ctx, "SELECT SUM(cents) FROM "+live.Table("held"))
//
// A Set is the projections that one process follows. Any number of processes may have the same ones: a lease decides who follows a version. Which
// versions there are, and which one is live, is kept in the log's own database, and every process acts by it. So the commands (Rebuild, Swap,
// Pause, Resume, Drop) may be given to any Set of the log, one without definitions too.
//
// What holds, on each engine of package eventstore:
//
//   - An asynchronous projection in tables of the log's database has each event applied once: with its position, in one transaction. One in a state
//     store (Keyed) too: each row says up to which event it is made. Any other function is called at least once.
//   - An inline projection in tables is changed in the transaction of the append, or the append is not made.
//   - A rebuild begins a version beside the live one, goes on after a crash where it was, and is made live in one step. In that step the new version
//     is at least as far as the one before: what readers of the live one see does not go back.
//   - The versions before stay, and are followed, until they are dropped. So one can swap back.
package projection
