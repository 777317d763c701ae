// Package permissions is the service that knows which endpoints there are, whom they are for, and so what a session may call.
//
// Two things are kept: the catalogue of what services have registered, as one value, and what is known of sessions (roles, states),
// in a few dozen values that are read all at once. Each change of either is a compare-and-set. A session's capabilities are computed
// from both, and sent before they are written down as sent: who dies in between sends them again, with a higher version.
package permissions
