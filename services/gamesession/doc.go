// Package gamesession is the service that says who plays with whom: game sessions with seats.
//
// A game session is one value, changed by compare-and-set, so that no seat is given twice. To join takes several steps, which are
// the saga game-session-join: a seat is held, its player is invited and confirms, and has it; or does not in time, and it is free again. The
// service has the steps; what follows what is in package workflows. A seat that is held has a time of its own besides: a step that comes late, after it
// was undone, holds no seat for ever.
package gamesession
