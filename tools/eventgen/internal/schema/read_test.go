package schema

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// good is a correct schema that the tests of mistakes begin with. Its last line is line 18, the 18th counted from 1.
const good = `description: Things.
topics:
  thing.made:
    event: ThingMadeEvent
    description: Sent when a thing was made.
components:
  schemas:
    ThingMadeEvent:
      type: object
      description: Names a thing.
      required: [name]
      properties:
        name:
          type: string
          description: Its name.
        size:
          type: integer
          description: Its size.
`

// with returns good with one line changed. The new text may hold more lines than one.
func with(t *testing.T, old, changed string) string {
	t.Helper()
	require.Equal(t, 1, strings.Count(good, old), "the line to change must be there once: %q", old)
	return strings.Replace(good, old, changed, 1)
}

func folder(files map[string]string) fs.FS {
	fsys := fstest.MapFS{}
	for name, content := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return fsys
}

func TestReadUnderstandsASchema(t *testing.T) {
	set, err := Read(folder(map[string]string{"a.yaml": good, "b.yaml": `description: Listens.
x-event-subscriptions:
  - {topic: thing.made, event: ThingMadeEvent, handler: count}
`}), "schemas")
	require.NoError(t, err)
	require.Len(t, set.Files, 2)
	topic := set.Files[0].Topics[0]
	require.Equal(t, "thing.made", topic.Name)
	require.Equal(t, Pos{"schemas/a.yaml", 3}, topic.Pos)
	require.True(t, topic.Event.Type.Event)
	require.Equal(t, []bool{true, false}, []bool{topic.Event.Type.Properties[0].Required, topic.Event.Type.Properties[1].Required})
	require.Equal(t, "b", set.Files[1].Owner)
	require.Same(t, topic.Event.Type, set.Files[1].Subscriptions[0].Event.Type)
}

// TestMistakesNameFileAndLine gives the reader one wrong schema each, and wants exactly these messages.
func TestMistakesNameFileAndLine(t *testing.T) {
	listens := func(subscription string) map[string]string {
		return map[string]string{"a.yaml": good, "b.yaml": "description: Listens.\nx-event-subscriptions:\n  - " + subscription + "\n"}
	}
	alone := func(content string) map[string]string { return map[string]string{"a.yaml": content} }
	size := func(changed string) map[string]string {
		return alone(with(t, "          type: integer\n          description: Its size.\n", changed))
	}
	thing := func(changed string) map[string]string {
		return alone(good + changed)
	}

	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		// Declared twice.
		{"a topic in two files", map[string]string{"a.yaml": good, "b.yaml": "description: B.\ntopics:\n  thing.made:\n    event: ThingMadeEvent\n    description: Again.\n"},
			[]string{`schemas/b.yaml:3: topic "thing.made" is already declared in schemas/a.yaml:3`}},
		{"a topic twice in a file", alone(with(t, "components:\n", "  thing.made:\n    event: ThingMadeEvent\n    description: Again.\ncomponents:\n")),
			[]string{`schemas/a.yaml:6: topic "thing.made" is already declared in schemas/a.yaml:3`}},
		{"a type in two files", map[string]string{"a.yaml": good, "b.yaml": "description: B.\ncomponents:\n  schemas:\n    ThingMadeEvent:\n      type: object\n      description: Another.\n"},
			[]string{`schemas/b.yaml:4: type "ThingMadeEvent" is already declared in schemas/a.yaml:8`}},
		{"a type twice in a file", thing("    ThingMadeEvent:\n      type: object\n      description: Another.\n"),
			[]string{`schemas/a.yaml:19: type "ThingMadeEvent" is already declared in schemas/a.yaml:8`}},
		{"a nested type and a declared one", thing("        kind:\n          type: string\n          enum: [a]\n          description: Its kind.\n    ThingMadeKind:\n      type: string\n      enum: [b]\n      description: Another.\n"),
			[]string{`schemas/a.yaml:23: type "ThingMadeKind" is already declared in schemas/a.yaml:20`}},
		{"a property twice", thing("        name:\n          type: string\n          description: Again.\n"),
			[]string{`schemas/a.yaml:19: key "name" of properties of type "ThingMadeEvent" is already in schemas/a.yaml:13`}},

		// Unknown types.
		{"a topic's type", alone(with(t, "    event: ThingMadeEvent\n", "    event: ThingMade\n")),
			[]string{`schemas/a.yaml:4: topic "thing.made" carries the unknown type "ThingMade"`,
				`schemas/a.yaml:8: type "ThingMadeEvent" is not used: no topic carries it and no $ref names it`}},
		{"a property's type", size("          $ref: '#/components/schemas/Size'\n          description: Its size.\n"),
			[]string{`schemas/a.yaml:17: $ref names the unknown type "Size"`}},
		{"an array's type", size("          type: array\n          items: {$ref: '#/components/schemas/Size'}\n          description: Sizes.\n"),
			[]string{`schemas/a.yaml:18: $ref names the unknown type "Size"`}},
		{"a type of another file", map[string]string{"a.yaml": with(t, "          type: integer\n", "          $ref: '#/components/schemas/Size'\n"),
			"b.yaml": "description: B.\ncomponents:\n  schemas:\n    Size:\n      type: string\n      enum: [big]\n      description: A size.\n"},
			[]string{`schemas/a.yaml:17: $ref names the type "Size" of a.yaml, which is declared in schemas/b.yaml:4`,
				`schemas/b.yaml:4: type "Size" is not used: no topic carries it and no $ref names it`}},
		{"a $ref elsewhere", size("          $ref: '#/definitions/Size'\n          description: Its size.\n"),
			[]string{`schemas/a.yaml:17: $ref "#/definitions/Size" is not of the form #/components/schemas/Name or other.yaml#/components/schemas/Name`}},
		{"a subscription's type", listens("{topic: thing.made, event: Thing, handler: count}"),
			[]string{`schemas/b.yaml:3: subscription to "thing.made" expects the unknown type "Thing"`}},
		{"a type that nothing uses", thing("    Thing:\n      type: object\n      description: Another.\n"),
			[]string{`schemas/a.yaml:19: type "Thing" is not used: no topic carries it and no $ref names it`}},

		// Subscriptions.
		{"a topic that does not exist", listens("{topic: thing.mad, event: ThingMadeEvent, handler: count}"),
			[]string{`schemas/b.yaml:3: subscription to the topic "thing.mad", which no schema declares`}},
		{"the type of another topic", map[string]string{
			"a.yaml": with(t, "components:\n", "  thing.gone:\n    event: ThingGoneEvent\n    description: Sent when it is gone.\ncomponents:\n") +
				"    ThingGoneEvent:\n      type: object\n      description: Another.\n",
			"b.yaml": "description: B.\nx-event-subscriptions:\n  - topic: thing.made\n    handler: count\n    event: ThingGoneEvent\n"},
			[]string{`schemas/b.yaml:5: subscription to "thing.made" expects ThingGoneEvent, but the topic carries ThingMadeEvent (schemas/a.yaml:4)`}},
		{"the same subscription twice", listens("{topic: thing.made, event: ThingMadeEvent, handler: count}\n  - {topic: thing.made, event: ThingMadeEvent, handler: count}"),
			[]string{`schemas/b.yaml:4: handler "count" is subscribed to topic "thing.made" already in schemas/b.yaml:3`}},
		{"nothing but a topic", listens("topic: thing.made"),
			[]string{`schemas/b.yaml:3: a subscription has no event`, `schemas/b.yaml:3: a subscription has no handler`}},
		{"a handler's name", listens("{topic: thing.made, event: ThingMadeEvent, handler: countThings}"),
			[]string{`schemas/b.yaml:3: handler "countThings" is not lower-case words with dashes`}},

		// Types and formats of properties.
		{"an unknown type", size("          type: int\n          description: Its size.\n"),
			[]string{`schemas/a.yaml:17: property "size" has the unknown type "int": there are string, boolean, integer, number, array and object`}},
		{"an unknown format", size("          type: integer\n          format: int16\n          description: Its size.\n"),
			[]string{`schemas/a.yaml:18: property "size" has the unknown format "int16" for type integer`}},
		{"a format of another type", size("          type: string\n          format: int32\n          description: Its size.\n"),
			[]string{`schemas/a.yaml:18: property "size" has the unknown format "int32" for type string`}},
		{"a format of a boolean", size("          type: boolean\n          format: date-time\n          description: Its size.\n"),
			[]string{`schemas/a.yaml:18: property "size", a boolean, cannot have format`}},
		{"no type", size("          description: Its size.\n"),
			[]string{`schemas/a.yaml:17: property "size" has no type`}},
		{"no description", size("          type: integer\n"),
			[]string{`schemas/a.yaml:16: property "size" has no description`}},
		{"an array of nothing", size("          type: array\n          description: Sizes.\n"),
			[]string{`schemas/a.yaml:17: property "size", an array, has no items`}},
		{"an object of nothing", size("          type: object\n          description: Sizes.\n"),
			[]string{`schemas/a.yaml:17: property "size", an object, has neither properties nor additionalProperties`}},
		{"a map with properties", size("          type: object\n          properties: {}\n          additionalProperties: {type: string}\n          description: Sizes.\n"),
			[]string{`schemas/a.yaml:18: property "size", a map, cannot have properties`}},
		{"a property that is no mapping", size("          integer\n"),
			[]string{`schemas/a.yaml:17: property "size" must be a mapping`}},
		{"an enum of nothing", size("          type: string\n          description: Its size.\n          enum: []\n"),
			[]string{`schemas/a.yaml:19: property "size" has an enum without values`}},
		{"an enum's value twice", size("          type: string\n          description: Its size.\n          enum:\n            - big\n            - big\n"),
			[]string{`schemas/a.yaml:21: property "size" has the value "big" twice`}},
		{"an enum of numbers", size("          type: string\n          description: Its size.\n          enum: [1]\n"),
			[]string{`schemas/a.yaml:19: a value of enum must be a string`}},
		{"a declared type that is no object", thing("    Size:\n      type: integer\n      description: Its size.\n"),
			[]string{`schemas/a.yaml:19: type "Size" is not used: no topic carries it and no $ref names it`,
				`schemas/a.yaml:20: type "Size" must be an object, or a string with an enum`}},

		// Required, and typing mistakes.
		{"required, absent", alone(with(t, "      required: [name]\n", "      required:\n        - name\n        - nam\n")),
			[]string{`schemas/a.yaml:13: type "ThingMadeEvent" requires "nam", which is not among its properties`}},
		{"required twice", alone(with(t, "[name]", "[name, name]")),
			[]string{`schemas/a.yaml:11: type "ThingMadeEvent" requires "name" twice`}},
		{"a key of the file", alone(with(t, "topics:\n", "topic:\n")),
			[]string{`schemas/a.yaml:2: unknown key "topic" in a schema file: it may have description, topics, x-event-subscriptions, components`,
				`schemas/a.yaml:8: type "ThingMadeEvent" is not used: no topic carries it and no $ref names it`}},
		{"a key of a topic", alone(with(t, "    event: ThingMadeEvent\n", "    event: ThingMadeEvent\n    events: ThingMadeEvent\n")),
			[]string{`schemas/a.yaml:5: unknown key "events" in topic "thing.made": it may have event, description`}},
		{"a key of a type", alone(with(t, "      required: [name]\n", "      require: [name]\n")),
			[]string{`schemas/a.yaml:11: unknown key "require" in type "ThingMadeEvent": it may have type, description, allOf, required, properties, enum`}},
		{"a key of a property", size("          typ: integer\n          type: integer\n          description: Its size.\n"),
			[]string{`schemas/a.yaml:17: unknown key "typ" in property "size": it may have type, format, description, $ref, items, additionalProperties, enum, required, properties`}},
		{"a key of a subscription", listens("{topic: thing.made, event: ThingMadeEvent, handler: count, group: x}"),
			[]string{`schemas/b.yaml:3: unknown key "group" in a subscription: it may have topic, event, handler`}},
		{"a key beside a $ref", thing("        kind:\n          $ref: '#/components/schemas/Kind'\n          description: Its kind.\n          enum: [a]\n    Kind:\n      type: string\n      enum: [a]\n      description: A kind.\n"),
			[]string{`schemas/a.yaml:22: property "kind", a $ref, cannot have enum`}},

		// What is about a person.
		{"a mark that says no", size("          type: integer\n          x-personal: false\n          description: Its size.\n"),
			[]string{`schemas/a.yaml:18: x-personal of property "size" is true for what is about a person, or subject for what names that person; otherwise leave it out`}},
		{"a subject that is no string", size("          type: integer\n          x-personal: subject\n          description: Its size.\n"),
			[]string{`schemas/a.yaml:16: property "size" names the subject of the event, so it must be a string`}},
		{"two subjects", thing("        a: {type: string, x-personal: subject, description: A.}\n        b: {type: string, x-personal: subject, description: B.}\n"),
			[]string{`schemas/a.yaml:20: event "ThingMadeEvent" has two subjects, "a" and "b"`}},
		{"a mark in a list", thing("        owners:\n          type: array\n          description: Owners.\n          items:\n            type: object\n            properties:\n              name: {type: string, x-personal: true, description: A name.}\n"),
			[]string{`schemas/a.yaml:25: property "name" is within "owners" of type "ThingMadeEvent", where x-personal has no effect: mark that one instead`}},
		{"a mark in what is marked", thing("        owner:\n          type: object\n          x-personal: true\n          description: Its owner.\n          properties:\n            name: {type: string, x-personal: true, description: A name.}\n"),
			[]string{`schemas/a.yaml:24: property "name" is within "owner" of type "ThingMadeEvent", where x-personal has no effect: mark that one instead`}},
		{"a mark of an element", thing("        names: {type: array, items: {type: string, x-personal: true}, description: Names.}\n"),
			[]string{`schemas/a.yaml:19: unknown key "x-personal" in items of property "names": it may have type, format, description, $ref, items, additionalProperties, enum, required, properties`}},
		{"a mark of a type", alone(with(t, "      required: [name]\n", "      x-personal: true\n      required: [name]\n")),
			[]string{`schemas/a.yaml:11: unknown key "x-personal" in type "ThingMadeEvent": it may have type, description, allOf, required, properties, enum`}},

		// Names.
		{"a topic's name", alone(with(t, "  thing.made:\n", "  Thing.Made:\n")),
			[]string{`schemas/a.yaml:3: topic "Thing.Made" is not lower-case words with dots and dashes between them, of at most 200 letters`}},
		{"a type's name", alone(strings.ReplaceAll(good, "ThingMadeEvent", "thing_made")),
			[]string{`schemas/a.yaml:8: type "thing_made" is not a name in CamelCase that begins with a capital`}},
		{"a property's name", thing("        its_kind:\n          type: string\n          description: Its kind.\n"),
			[]string{`schemas/a.yaml:19: property "its_kind" is not a name in camelCase that begins with a small letter`}},
		{"a file's name", map[string]string{"a_linux.yaml": good},
			[]string{`schemas/a_linux.yaml:1: "a_linux" cannot be an owner: the file's name must be lower-case words with dashes, and not registry`}},
		{"two topics, one constant", alone(with(t, "components:\n", "  thing-made:\n    event: ThingMadeEvent\n    description: Again.\ncomponents:\n")),
			[]string{`schemas/a.yaml:6: "thing-made" needs the Go name TopicThingMade, which "thing.made" in schemas/a.yaml:3 has already`}},
		{"two values, one constant", size("          type: string\n          description: Its size.\n          enum: [veryBig, very-big]\n"),
			[]string{`schemas/a.yaml:19: "very-big" needs the Go name ThingMadeSizeVeryBig, which "veryBig" in schemas/a.yaml:19 has already`}},
		{"two properties, one field", thing("        sizeId:\n          type: string\n          description: One.\n        sizeID:\n          type: string\n          description: Two.\n"),
			[]string{`schemas/a.yaml:22: "sizeID" needs the field SizeID, which "sizeId" in schemas/a.yaml:19 has already`}},
		{"a name of the package", alone(strings.ReplaceAll(good, "ThingMadeEvent", "Base")),
			[]string{`schemas/a.yaml:8: "Base" needs the Go name Base, which is taken by the package itself`}},
		{"a name of every event", thing("        stamp:\n          type: string\n          description: A stamp.\n"),
			[]string{`schemas/a.yaml:19: "stamp" needs the field Stamp, which is taken by the package itself`}},

		// What events are.
		{"an eventId of its own", thing("        eventId:\n          type: string\n          description: Its id.\n"),
			[]string{`schemas/a.yaml:19: event "ThingMadeEvent" cannot have the property "eventId" of its own: every event has it`}},
		{"an event in an event", thing("        last:\n          $ref: '#/components/schemas/ThingMadeEvent'\n          description: The one before.\n"),
			[]string{`schemas/a.yaml:20: $ref names "ThingMadeEvent", which is an event and cannot be part of another type`}},
		{"an enum for an event", alone(good[:strings.Index(good, "      type: object")] + "      type: string\n      enum: [a]\n      description: No event.\n"),
			[]string{`schemas/a.yaml:4: topic "thing.made" carries "ThingMadeEvent", which is an enum: an event is an object`,
				`schemas/a.yaml:8: type "ThingMadeEvent" is not used: no topic carries it and no $ref names it`}},
		{"an object in itself", thing("        part:\n          $ref: '#/components/schemas/Part'\n          description: A part.\n    Part:\n      type: object\n      description: A part.\n      properties:\n        part:\n          $ref: '#/components/schemas/Part'\n          description: A part of the part.\n"),
			[]string{`schemas/a.yaml:27: type "Part" contains itself: an object can do so in an array or a map only`}},
		{"a property taken over twice", alone(with(t, "      required: [name]\n", "      allOf:\n        - $ref: '#/components/schemas/Named'\n      required: [name]\n") +
			"    Named:\n      type: object\n      description: A name.\n      properties:\n        name: {type: string, description: The name.}\n"),
			[]string{`schemas/a.yaml:15: type "ThingMadeEvent" has the property "name" already, from schemas/a.yaml:25`}},

		// YAML itself.
		{"a syntax error", alone(with(t, "    event: ThingMadeEvent\n", "    event: Thing: MadeEvent\n")),
			[]string{`schemas/a.yaml:4: not YAML: mapping values are not allowed in this context`}},
		{"an unclosed list", alone(with(t, "[name]", "[name")),
			[]string{`schemas/a.yaml:11: not YAML: did not find expected ',' or ']'`}},
		{"a tabulator", alone("description: Things.\ntopics:\n\tthing.made: {}\n"),
			[]string{`schemas/a.yaml:3: not YAML: found character that cannot start any token`}},
		{"an empty file", alone(""),
			[]string{`schemas/a.yaml:1: the file is empty`}},
		{"two documents", alone(good + "---\ndescription: More.\n"),
			[]string{`schemas/a.yaml:19: the file holds a second document: keep one schema in a file`}},
		{"a character that Go code cannot hold", alone(with(t, "Names a thing.", `"Names a \0 thing."`)),
			[]string{`schemas/a.yaml:10: description must not hold the character '\x00'`}},
		{"nothing where the file ends", alone("description: Things.\ntopics:\n  thing.made:\n  ? thing.gone"),
			[]string{`schemas/a.yaml:3: topic "thing.made" must be a mapping`, `schemas/a.yaml:4: topic "thing.gone" must be a mapping`}},
		{"an alias", alone(with(t, "[name]", "&n [name]") + "        kind: *n\n"),
			[]string{`schemas/a.yaml:19: property "kind" must be a mapping`}},
		{"a list for a mapping", alone("- description: Things.\n"),
			[]string{`schemas/a.yaml:1: a schema file must be a mapping`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Read(folder(c.files), "schemas")
			require.Error(t, err)
			var all Errors
			require.ErrorAs(t, err, &all)
			require.Equal(t, c.want, strings.Split(err.Error(), "\n"))
		})
	}
}

func TestReadReportsAllMistakesInOrder(t *testing.T) {
	_, err := Read(folder(map[string]string{
		"b.yaml": "description: B.\nx-event-subscriptions:\n  - {topic: thing.gone, event: ThingGoneEvent, handler: count}\n",
		"a.yaml": with(t, "          type: integer\n", "          type: int\n") + "        Kind: {type: string}\n",
		"c.yaml": "description: [\n\n",
	}), "schemas")
	require.EqualError(t, err, strings.Join([]string{
		`schemas/a.yaml:17: property "size" has the unknown type "int": there are string, boolean, integer, number, array and object`,
		`schemas/a.yaml:19: property "Kind" is not a name in camelCase that begins with a small letter`,
		`schemas/a.yaml:19: property "Kind" has no description`,
		`schemas/b.yaml:3: subscription to the topic "thing.gone", which no schema declares`,
		`schemas/b.yaml:3: subscription to "thing.gone" expects the unknown type "ThingGoneEvent"`,
		`schemas/c.yaml:2: not YAML: did not find expected node content`,
	}, "\n"))
}

func TestReadWithoutSchemas(t *testing.T) {
	_, err := Read(folder(nil), "schemas")
	require.EqualError(t, err, "there are no schemas in schemas: expected files that end in .yaml")
	require.NotErrorAs(t, err, new(Errors), "this is no mistake in a schema")
}
