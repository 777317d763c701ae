// Package events holds the contracts between services: which topics exist, which event each of them carries, and which
// service listens to it.
//
// The files in schemas are the source, one for each service that owns topics; the Go code is generated from them by
// tools/eventgen, whose documentation describes how a schema is written. To add an event, add it to its owner's
// schema and run make generate.
//
// An event is one flat JSON object with camelCase members. Every event has eventId and timestamp, from [Base]; the
// schemas do not repeat them. Transport (ids for correlation, priorities, traces) is never part of an event: it travels
// in the properties of the message.
//
//	{"eventId":"0198c0de-...","timestamp":"2026-01-02T15:04:05Z","accountId":"5b8f...","changedFields":["email"]}
//
// A member that a schema requires is always written. An optional one is left out when it has its zero value, and is
// the zero value after decoding when it was left out: a reader cannot tell 0 from absent, and need not. Receivers ignore
// members that they do not know, so adding an optional member breaks nobody; removing one, or changing its type, does.
// A string with a closed set of values is a type with constants; receivers must expect values that were added later.
//
// The types encode to the same JSON with encoding/json and with its successor, encoding/json/v2, except that the former
// writes a required array or map that is nil as null. Bannou's bus uses the latter, which writes [] and {}.
//
// The package imports the standard library only, and has no state.
package events
