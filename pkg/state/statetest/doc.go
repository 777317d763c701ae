// Package statetest is the conformance suite of state drivers: what a program may rely on whichever engine keeps its
// stores. A driver's own tests call Run; what the engine cannot do is declared in Features, so that a difference is
// written down and never a surprise.
package statetest
