// Package events is the service that offers a log of events over HTTP: appends, reads, and following it as server-sent events.
//
// Data passes through as it is. What a caller asks for wrongly is answered with the member at fault before the log sees it. Categories may be
// reserved for apps (Config.Access); the whole log may be read by who may read all that is reserved.
package events
