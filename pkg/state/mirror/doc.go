// Package mirror compares a store with its counterpart in another place while the store is in use, so that it can be told whether it is
// safe to switch to that place.
//
// Wrap gives a driver whose stores answer as before, from where they are. Of the keys that callers read and change, a share is then
// looked at in both places, in the background, and what differs is counted by its reason, logged, and kept in a Ledger, which gives
// reports over the last minutes. A counterpart that shows the same rows through another program (the rows of a Dapr store, say) is
// compared as it is; for one with rows of its own, each change is carried to it as well (Counterpart.Writes).
//
// Callers wait for none of this: what does not fit into a bounded queue is skipped and counted. A counterpart that is away
// or slow is a line in the report, never an error of a call.
package mirror
