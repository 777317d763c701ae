// Package mesh lets one service call another by name, directly over HTTP, with nothing in between.
//
// # From a name to a process
//
// A service runs on an app-id: the name of a kind of node. [Mappings] say which; a service without a mapping is on the
// default app-id, "bannou", the node that runs everything. An app-id has instances, each an [Endpoint]: an address, a
// status and a load. So a call goes
//
//	service -> app-id (mappings) -> usable endpoints (directory) -> one of them (balancer) -> HTTP
//
// and when that endpoint is this very process, the last step is a function call instead of a socket.
//
// # The parts
//
// A [Registry] is the shared truth: who is there, which service is where, and the configuration's history. It keeps
// them in a [Table] (the state layer) and announces changes on a [Feed] (the bus). Both are small interfaces, so this
// package knows neither. Any number of registries may work on one table at once, without losing each other's writes.
//
// A [Directory] is one process's copy of that truth, made to be read on every call: an immutable snapshot behind an
// atomic pointer. It follows the feed, so a new instance is used within milliseconds of its registration, and it reads
// the registry again every few seconds, so a lost announcement heals. When both are away it goes on serving what it
// knew last.
//
// A [Client] calls: [Invoke] for typed JSON, [Client.Do] for any request. A [Balancer] chooses among the [Instance]s that
// are usable and not ejected ([Ejection]), by what the client's own calls showed of them; [Client.Targets] tells it. [NewProxy]
// does the same for programs in other languages, at /v1.0/invoke/{appId}/method/{method...}.
//
// # Which instance is usable
//
// One rule holds wherever endpoints are selected: the healthy ones; if there is none, the degraded ones (quiet for a
// minute, declared so by themselves, or found so by a [Prober]); never one that is unavailable or shutting down. See [Usable]. A client leaves some of
// them out for a while when they fail, and prefers those of its own zone.
//
// # Keys
//
// The table's keys are a contract with other programs:
//
//	service:registry:{appId}:{instanceId}  one Endpoint; lives 90 s after the instance was last seen
//	service:heartbeat:{appId}              health of an app-id with the list of its instances; 90 s
//	service:apps                           the app-ids that have instances; 90 s. It makes listing need no scan
//	service:probe                          says that a round of active probes was begun; lives nine tenths of their interval
//	service:routing:{serviceName}          where a mapped service is; 5 min, refreshed while the mapping stands
//	config:current                         the Config in force, mappings included
//	config:version                         its version, alone
//	config:history:{version}               each Config there was
//
// The configuration's own record, config:current, is the only one that decides; config:version, config:history and
// service:routing follow it and are repaired from it.
package mesh
