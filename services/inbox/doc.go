// Package inbox has the handlers of a bus handle each event once, however often it arrives: the mark that it was handled is written in
// the transaction of a database in which the handler has its effect.
package inbox
