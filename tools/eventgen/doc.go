// Command eventgen writes the Go code of package events from the schemas in events/schemas.
//
//	eventgen -schemas ../events/schemas -out ../events [-package events] [-check]
//
// It writes one file for each schema (types, topics) and registry.gen.go (which topic carries what, who listens to what),
// and removes files that it wrote for schemas that are gone. With -check it writes nothing, and fails if something is not as
// it would write it. With another -package it writes the types and topics of a module that keeps the schemas of its own events, and no registry:
// that of package events knows the events of the suite. The exit code is 1 for mistakes in the schemas, all of which are listed with file and line, and 2 for
// wrong arguments.
//
// # Schemas
//
// A schema is a YAML file named for the service that owns its topics. Types are written as in JSON Schema, of which the
// generator knows what is shown here. It refuses any other key, so that a mistyped one is found.
//
//	description: Changes of stored values.          # required, as is every description but those within items
//
//	topics:
//	  state.changed:                                # lower-case words, dots and dashes between them
//	    event: StateChangedEvent                    # a type of this file, or of another
//	    description: Sent after every change.
//
//	x-event-subscriptions:                          # what this service listens to; the topics are mostly others'
//	  - topic: account.deleted
//	    event: AccountDeletedEvent                  # must be what the topic carries
//	    handler: forget-account                     # listed as state.forget-account
//
//	components:
//	  schemas:
//	    StateChangedEvent:                          # eventId and timestamp are added to every event
//	      type: object
//	      description: Names a key that has changed.
//	      allOf:                                    # takes over all properties of an object, by embedding it
//	        - $ref: '#/components/schemas/Place'
//	      required: [operation]
//	      properties:
//	        operation: {type: string, enum: [save, delete], description: What was done.}
//	    Place:                                      # not carried by a topic: part of other types
//	      type: object
//	      ...
//
// Properties are in camelCase. What they can be, and the Go type of each:
//
//	{type: string}                                  string
//	{type: string, format: uuid}                    string
//	{type: string, format: date-time}               time.Time
//	{type: string, enum: [a, b]}                    a string type of its own, named for the type around it, with constants
//	{type: boolean}                                 bool
//	{type: integer}                                 int; format int32 or int64: int32, int64
//	{type: number}                                  float64
//	{type: array, items: {...}}                     a slice
//	{type: object, additionalProperties: {...}}     a map with string keys
//	{type: object, properties: {...}}               a struct of its own, named for the type around it
//	{$ref: '#/components/schemas/Place'}            that type; other.yaml#/... for one of another file
//
// A property that is about a person has the key "x-personal: true", and the string that names that person, by an id, "x-personal: subject". Where
// the type is that of an event in a log, pkg/state/eventstore encrypts the former with a key of the latter, until the subject is erased. On the bus they are
// as they are.
//
// A property that is not required is left out of the JSON when it has its zero value. A type's description becomes its doc
// comment behind its name, so it begins with a verb ("Names a key") or an article ("A key", which becomes "is a key").
// Types must not contain themselves other than in arrays and maps, and every type must be used.
package main
