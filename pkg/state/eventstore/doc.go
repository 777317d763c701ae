// Package eventstore keeps what has happened: streams of events that are appended and never changed, in one order that every reader sees.
//
// A Store is one log of a database, of MySQL, MariaDB, a SQLite file or memory (packages mysqlevents, sqliteevents, memoryevents, beside
// the stores of the same driver). Its events are of streams, named by category and id:
//
//	log, err := mysqlevents.Open(driver, eventstore.Config{})
//	account := eventstore.StreamID{Category: "account", ID: "a-1"}
//	appended, err := log.Append(ctx, account, eventstore.NoStream, eventstore.Event{Type: "opened", Data: jsontext.Value(`{"by":"Ada"}`)})
//	for event, err := range log.ReadStream(ctx, account, eventstore.ReadOptions{}) {
//
// All engines pass one conformance suite, package eventstoretest. What holds on each of them:
//
//   - Versions of a stream, and positions of the log, are 1, 2, 3 and so on, without a gap. A reader who sees a position sees all below it,
//     and never sees an event come that is below one it has seen.
//   - Of two appends that expect one version of a stream, one is made; the other is a *VersionError.
//   - An append of several events, of several streams too, is made as a whole or not at all.
//   - An append that is repeated with the ids of its events is made once.
//   - What was acknowledged is there, and what was refused is not. An append whose answer did not come is state.ErrOutcomeUnknown.
//
// On top of that: Types gives events Go types, and reads old versions of them by way of upcasters; an Aggregate decides on the state that its
// events lead to, with snapshots and retries; a Subscription hands events to a handler, those there are and then those that come.
//
// Errors are those of package state (ErrConflict, ErrUnavailable, ErrOutcomeUnknown, ErrInvalid, ErrCorrupt, ErrTooLarge).
package eventstore
