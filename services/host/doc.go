// Package host runs services: one listener, one mux, one order of starting and stopping.
//
// A Host listens first, then starts its services one after another, each after those it depends on. Until the last one
// has started, /healthz answers and /readyz says what is still missing; the services' own paths answer 503. Those that tell
// others to call this node (Announcer) are started when the rest takes requests. When the
// context of Run ends, the host drains: services that announce themselves elsewhere take that back (Drainer), /readyz
// turns 503, the listener closes, requests under way finish, and the services stop in reverse order. HardStop cuts that
// short.
//
// Every request has an id (X-Request-Id, taken over or made) and a trace context (traceparent, taken over), is counted
// and timed, and logged at debug. A handler that panics is answered with 500 and logged with its stack. Paths that do not
// exist and methods that a path does not take are answered as problems, like all other errors.
//
//	GET /healthz       200 while the process serves
//	GET /readyz        200 or 503, with each dependency and service; what is Degraded is shown and does not make it 503
//	GET /metrics       Prometheus, when the host was given Metrics
//	GET /openapi.yaml  one document for all services
package host
