// Package guard decides who may call a node, and shows other nodes who calls.
//
// # Who calls
//
// A node that is guarded asks every request who it is from, the probes /healthz, /readyz and /metrics excepted. One of these
// says it; the first that a request has decides, and one that is wrong is refused, whatever else the request has:
//
//	a client certificate   signed by the mesh's authority; its first DNS name is the caller's app-id
//	Bannou-Token           the mesh's token, with the app-id in Bannou-App-Id, or the token of an app
//	Authorization: Bearer  either token, for callers that are no nodes
//
// The mesh's token is one secret for all: who has it may call itself what it likes, so that app-ids beside it guard against
// mistakes, not against those who have it. A certificate, and the token of an app, belong to one app-id.
//
// # What they may do
//
// Rules name, for a service, a part of its paths or an app-id, the app-ids that may call it. What has no rule may be called by every caller
// that was let in, but for what is closed to the tokens of apps, which call it only by a rule of its name: mesh and orchestrator, since
// whoever registers an endpoint is shown the mesh's token, and what decides who may do what (closedParts). So it is for topics that
// are a service's own (Guard.MayPublish), and for those that tell secrets (Guard.MaySubscribe). An app-id may always call itself. On the
// invoke endpoint the rules of its target are asked, before the call is passed on as the node's own: a node answers for those whom it lets
// in. Bannou-On-Behalf-Of tells the nodes behind it whose token that was, for what no token of an app may do (Guard.MayAnnounce), and for
// what is closed to it.
//
// # Secrets
//
// Files are read again when they change, within a second of the next request; one that cannot be used is logged, and what was
// read before goes on to hold. Connections that are open stay open. Tokens are kept as digests and compared in full. None of them,
// and nothing of a key, is in a log, an error or an answer.
package guard
