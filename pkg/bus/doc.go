// Package bus publishes events and hands them to handlers, over RabbitMQ, Redis Streams or in memory, with Watermill.
//
// # The one idea
//
// A topic is a name, a subscription is a queue. Publish sends an event to an exchange under its topic and returns when
// the broker has confirmed it; the broker puts a copy into every queue that is bound to the topic. Each handler has its
// own queue, named "{topic}.{group}", and the instances of a program share it. So services know nothing of one another:
// a handler that is slow, fails or is away has its own backlog, its own retries and its own dead letters, and no other
// handler notices.
//
// # What it promises
//
//   - Publish returns nil only when the broker has the event, and returns by its context's deadline in any case.
//   - An event that was confirmed is handled at least once by every durable subscription that existed then. A handler
//     must expect to see an event again, and can tell by its id.
//   - Up to PrefetchCount events of a subscription are handled at once. Events with the same partition key are handled
//     one after another, in order, by each instance. An event that failed and waits for its redelivery lets its
//     successors pass, and so does a second instance of the same group: order is for what flows, within one instance.
//   - A handler that fails is called again: at once (Config.ImmediateRetries), then after RetryDelay, the broker
//     holding the event meanwhile (RetryMaxAttempts times). Then the event goes to the dead-letter exchange under
//     "dead-letter.{topic}" with its history in its headers, and only when that is confirmed is it acknowledged.
//     A Permanent error and a body that cannot be decoded take the short way there. A panic is a failure.
//   - A handler that is cut short because the bus closes has neither failed nor succeeded: its event goes back.
//   - Nothing is dropped without being counted (bannou.bus.dropped) and logged.
//
// # What is whose
//
// The Bus owns the shape of events, retries, dead letters, order and telemetry. A Driver (packages memorybus,
// rabbitbus, redisbus) owns the wire: connections, confirms, queues, delayed redelivery. Package bustest holds every driver to
// the same promises.
//
// Handlers of the bus, static ones (Handle) and dynamic ones (Subscribe), which come and go at run time, are called straight
// from their queues. Plain Watermill handlers stand beside them on the router that Bus.Router returns, with Bus.Publisher
// and Bus.Subscriber. All have the same middleware, outermost first: recoverer, tracing and metrics, dead-lettering, retry,
// throttle, timeout, the handler.
package bus
