// Package migrate moves a store from one place to another, of any engine to any, while it is in use.
//
// A Migration copies the keys, compares the two places, and moves the decision from one to the other; it is what an operator
// runs. Wrap is what the nodes have that serve the store: a driver whose engine makes each change where the decision is, and
// carries it to the other place.
//
//	source   the old place decides; nothing is carried
//	mirror   the old place decides; each change is then carried to the new one
//	target   the new place decides; each change is then carried to the old one, so that there is a way back
//	done     the new place decides; nothing is carried
//
// What makes it right:
//
//   - A key is carried by compare-and-set on the place it is carried to: read its ETag there, then read the key where the decision
//     is, then write on condition of that ETag. Whoever writes last has read the newest value, in whatever order processes run.
//   - The phase is a record that all nodes read, with a lease. A node that has not read it for longer than the lease serves
//     nothing, and what it asked an engine for in that time it does not acknowledge. The decision moves after a pause that is
//     longer than the lease, so no two nodes ever decide in different places.
//   - Before a node changes keys it writes down which, where the decision is, and it takes the note away when they have been
//     carried. So the one that moves the decision knows what is still to be carried, nodes that were killed included.
package migrate
