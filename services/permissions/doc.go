// Package permissions is the service that knows which endpoints there are, whom they are for, and so what a session may call.
//
// Two things are kept: the catalogue of what services have registered, as one value, and what is known of sessions (roles, states),
// in a few dozen values that are read all at once. Each change of either is a compare-and-set. A session's capabilities are computed
// from both, written down with the next version, sent, and noted as told. So each version is of one set, and no clock puts them in
// order; where who sends them dies in between, whoever changes the session next finds them untold, and tells.
package permissions
