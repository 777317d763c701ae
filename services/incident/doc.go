// Package incident tells the bus what a node could not handle: requests that it failed at, panics, and events that were
// given up, as service.error.
//
// An incident is known by its service, operation and code, its key. The first of a key is published at once; those that
// follow within the window are counted, and published as one event when it ends. So a failure that repeats costs one event
// a window, whatever its rate, and the occurrences add up to what happened. A Reporter holds one small record for each key;
// those who meet an incident only write into it, so that nothing that fails is made slower by telling of it.
//
// A Reporter never tells of itself: neither of a dead letter of service.error, nor of an event that it could not publish.
package incident
