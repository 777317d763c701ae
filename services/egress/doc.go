// Package egress decides which addresses this node calls on behalf of others: callbacks that clients name, and hosts
// that they register. Without it, whoever reaches the node could use it to reach elsewhere.
//
// By default that is loopback alone; the operator names further networks. An address is checked twice: when it is
// given, so that the caller learns it, and again on the resolved address of each connection, so that a name which
// resolves differently later, or a redirect, does not get around it. A proxy from the environment is never used.
//
// Addresses with a meaning of their own (unspecified, link-local with the metadata services of clouds, multicast,
// broadcast) are not let in by a wide network such as 0.0.0.0/0, only by one that names them or a part of them. An IPv4
// address written as IPv6 (mapped, NAT64) is what it stands for.
package egress
