// Package accounts is the service that keeps who there is: an id, an e-mail address, a name that others see, roles.
//
// What has happened to an account is kept as events, in one stream an account, and what is known of it follows from them. An
// address is kept by a stream of its own, named by a digest of it, whose last event says who has it. An account and its
// address are changed by one append, on condition that neither stream has changed meanwhile: so nobody gets an address that
// is taken, and none is taken by nobody. Two subscriptions follow the log: one tells the bus (account.created and the rest),
// one keeps the list that is searched.
package accounts
