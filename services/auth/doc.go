// Package auth is the service that knows passwords and sessions: who is it that calls, and does his session still live?
//
// An account's sessions are one value of an expiring store, so that a login, the end of one session and the end of all of
// them are each one compare-and-set of one key: none writes back what another has removed. An access token is a JWT that
// names account and session; whether it holds is asked of that value, which is only read. A refresh token is random, and kept as a
// digest. Passwords are kept, as argon2id makes them, in a lasting store; accounts are another service's, reached by the mesh.
package auth
