// Package permissions is the service that knows which endpoints there are, whom they are for, and so what a session may call.
//
// Two things are kept: the catalogue of what services have registered, as one value, and what is known of sessions (roles, states),
// in a few dozen values that are read all at once. Each change of either is a compare-and-set. A session's capabilities are computed
// from both, and their version is the sum of the two versions, which count the changes: no clock puts them in order. What is sent of a
// session is noted then; where who sends it dies in between, it is sent again.
package permissions
