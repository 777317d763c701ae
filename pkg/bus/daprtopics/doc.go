// Package daprtopics lets programs with a native driver share topics with apps of Dapr on one broker: who publishes and who subscribes
// may be either, topic by topic, until the last app of Dapr is gone.
//
// Dapr keeps a topic in a place of its own, an exchange of that name on RabbitMQ and a stream on Redis, and events there in CloudEvents'
// envelope. Two settings for each topic bring native programs there:
//
//   - Subscribe has native subscriptions read Dapr's place beside their own. What comes in an envelope is taken out of it: handlers see the
//     flat event that a native program would have published. Each reads with its own queue or group; those of Dapr's apps are not touched.
//   - Publish has native programs publish to Dapr's place alone, in an envelope. It is one message, confirmed once, that the broker gives to
//     all who read there: there is no second copy that could be missing.
//
// So nothing is lost when all native subscribers of a topic have Subscribe before the first publisher has Publish, and go back in the other
// order. A driver with neither setting for a topic that was shared still empties the envelopes that wait in its queues, as long as the topic
// is named; on RabbitMQ it takes the queue off Dapr's exchange. Readers says who else reads a topic: when nobody of Dapr does, Publish may go.
//
// An event is known by its source and id together, as CloudEvents has it: an id that is no UUID is made one of both, and is the event's id to
// handlers and inboxes.
package daprtopics
