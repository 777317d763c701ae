// Package daprbus publishes and subscribes through a sidecar of Dapr, over its HTTP API. It is for services that are moved from Dapr: they run on it first,
// and then on a native driver.
//
// An event is published as JSON, so that any app of Dapr has it as the data of a CloudEvent whose id and type are the event's; its other
// properties are in the query of the attribute source. What has no JSON, or large properties, goes as a CloudEvent with data_base64. What comes from other
// apps is unwrapped: the event is the CloudEvent's data, digit for digit, with an eventId where it has none.
//
// Dapr decides who gets what: all instances of the sidecar's app are one group, and a topic has no wildcards. So each handler of this process gets every
// event of its topic that came to this instance, and a subscription that asks for all of them on every instance, or for a pattern, is refused with
// bus.ErrUnsupported. Daprd asks once, when it starts, which topics are subscribed to; a topic that is subscribed to later is refused until daprd starts again.
// Serve the driver's handler after the handlers are registered: daprd waits until somebody listens.
//
// An event is answered when all handlers of the process have settled it. A redelivery is made here, while the sidecar waits for its answer; if this
// process ends meanwhile, it is for the component to bring the event again: RabbitMQ needs requeueInFailure for that, which is off by default.
// What is given up is published to the topic of dead letters, where somebody must be subscribed to keep it.
package daprbus
