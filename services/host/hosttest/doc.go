// Package hosttest checks, over HTTP, that the endpoints of a service refuse bad input as every service has to: with a
// problem that has the right status and code and names the member at fault, and never with a 5xx.
package hosttest
