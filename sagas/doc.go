// Package sagas runs work in several steps at several services, which ends as a whole: all steps done, or those that were done undone again.
//
// # The parts
//
// A [Definition] is plain Go: states, what each message does in them, the command that a state issues when it is entered, over the bus or
// the mesh, how that is undone, and how long a state may last. [Definition.Build] checks it and makes a [Saga]. An [Engine] runs sagas on an
// event store: an instance is a stream, found by the key that correlates its messages.
//
//	placed := sagas.Correlated("order.placed", func(e *OrderPlaced) string { return e.OrderID })
//	engine, err := sagas.New(sagas.Config{Store: log, Bus: bus, Caller: sagas.OverMesh(client), Sagas: []*sagas.Saga{order}})
//	err = engine.Run(ctx)
//
// # What holds
//
//   - Whatever an instance is given is entered once, in one append with what follows from it: the change of state, commands, timeouts,
//     and what has to be undone. A message that comes twice is taken once.
//   - A command is issued at least once, each time with the same id, also when a process is killed anywhere. Receivers that know ids act once.
//   - Every instance ends: completed, compensated, cancelled by a person; or it is parked with a reason, for a person to see.
//   - Compensation undoes what was begun in reverse order, one step at a time, each until it succeeds, or parks.
//   - Messages of one instance are taken one after another, whichever processes they reach; those of different instances at the same time.
//   - An instance goes on with the version of the definition that it began with.
//
// What comes late, twice, early, or for nobody is a policy of the definition: see [Policies]. docs/sagas.md tells how all this is made. Package
// sagatest runs a definition against messages that are scripted, reordered, doubled and lost.
package sagas
