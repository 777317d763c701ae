// Package connect is the gateway of players: a WebSocket for each session, over which it calls services and gets its events.
//
// # Who holds what
//
// A session has one record in the store, one queue on the broker, and at most one connection, on the node that the record names. The
// record is what decides: whoever connects changes it by compare-and-set, and the node that held the connection before hears of it, or
// finds it changed when it next renews it. The queue, "session.{id}", gets what is published to session.{id}.*; it outlives the
// connection, and its node, for as long as the client may come back. An event leaves it when the client has acknowledged it, so what
// a node has sent and not heard back about is delivered again, to whichever node the client comes to.
//
// # What a connection may call
//
// What the permissions service sent last of the session, and nothing before it has sent anything. Each endpoint has an id that is
// made with the session's own salt: one of another session means nothing here. Bodies are passed on as they are.
//
// docs/gateway.md has the frames, byte by byte.
package connect
