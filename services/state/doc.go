// Package state is the service that offers the state layer over HTTP.
//
// Values pass through as they are: the service neither reads nor rewrites them, so numbers come back to the digit. What
// a caller asks for wrongly is answered with the member at fault before any store sees it. Stores that the program keeps
// for itself (Config.Internal) do not exist here.
package state
