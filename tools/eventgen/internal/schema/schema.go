// Package schema reads event schemas, and finds what is wrong in them.
//
// Reading has two steps: each file by itself (read.go, shape.go), then all together (check.go), where names in one file
// are resolved to what they mean in another. Mistakes are gathered, not returned at the first.
package schema

// A Set is all schemas of a folder, in the order of their owners' names.
type Set struct {
	Files []*File
}

// A File is the schema of one owner.
type File struct {
	Owner         string // the service: the file's name without .yaml
	Path          string // as messages show it
	Description   string
	Topics        []*Topic
	Types         []*Type // in the order of the file; a nested type follows the one it is nested in
	Subscriptions []*Subscription
}

// A Topic is where events of one type are published.
type Topic struct {
	Pos         Pos
	Name        string
	Description string
	Event       Ref
}

// A Subscription says that the file's owner listens to a topic.
type Subscription struct {
	Pos     Pos
	Topic   string
	Event   Ref
	Handler string

	topicPos Pos
}

// A Ref is a use of a type.
type Ref struct {
	Pos  Pos
	Name string
	Type *Type // once resolved

	file string // the file that must declare it: a name in the folder, empty if any may
}

// A Kind is what a type or a value is.
type Kind int

// What values can be. Types are Object or Enum; Named is a use of one.
const (
	Invalid Kind = iota
	String
	UUID
	Time
	Boolean
	Integer
	Int32
	Int64
	Number
	Array
	Map
	Named
	Object
	Enum
)

// A Type becomes a Go type: an object a struct, an enumeration a string with constants.
type Type struct {
	Pos         Pos
	Name        string
	Kind        Kind // Object or Enum
	Description string
	Event       bool // some topic carries it, so it has eventId and timestamp
	Embeds      []*Ref
	Properties  []*Property
	Values      []Value
}

// A Property is a member of an object.
type Property struct {
	Pos         Pos
	Name        string
	Description string
	Required    bool
	Personal    Personal
	Shape       *Shape
}

// Personal says whether a property is about a person.
type Personal int

// What a property has to do with a person.
const (
	Impersonal Personal = iota
	Data                // it is about the subject
	Subject             // it names the subject
)

// A Shape is the type of a property, or of an array's or map's elements.
type Shape struct {
	Kind Kind
	Elem *Shape // of an Array or Map
	Ref  *Ref   // of Named
}

// A Value is one of an enumeration's.
type Value struct {
	Pos  Pos
	Text string
}
