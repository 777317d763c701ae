// Package workflows has the sagas of the suite: what takes several services, and ends as a whole.
//
//   - [Registration] follows account.created until the account has what it logs in with, and welcomes it; or takes it back.
//   - [Deletion] follows account.deleted until no session, no seat, no permission and nothing personal of the account is left.
//   - [Join] gives a player a seat of a game session, who confirms in time; or frees it.
//
// A definition knows other services by topics and paths alone, so that each may run on any node. docs/sagas.md draws them, and says why they
// are as they are.
package workflows
