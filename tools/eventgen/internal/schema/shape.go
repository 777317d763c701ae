package schema

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/bannou-mesh/bannou/tools/eventgen/internal/goname"
)

// declared reads one of the types under components.schemas.
func (r *reader) declared(e entry) {
	name := e.key.Value
	if !typeName.MatchString(name) {
		r.fail(e.key, "type %q is not a name in CamelCase that begins with a capital", name)
	}
	of := fmt.Sprintf("type %q", name)
	m := r.mapping(e.value, of, "type", "description", "allOf", "required", "properties", "enum")
	if !m.ok {
		return
	}
	t := &Type{Pos: r.at(e.key), Name: name, Description: r.description(e.key, m, of)}
	r.out.Types = append(r.out.Types, t)
	switch kind := r.required(e.key, m, "type", of); {
	case kind == nil:
	case kind.Value == "object":
		r.object(t, m, of)
	case kind.Value == "string" && m.get("enum") != nil:
		r.enum(t, m, of)
	default:
		r.fail(kind, "%s must be an object, or a string with an enum", of)
	}
}

func (r *reader) object(t *Type, m mapping, of string) {
	t.Kind = Object
	r.only(m, of+", an object,", "type", "description", "allOf", "required", "properties")
	if n := m.get("allOf"); n != nil {
		for _, item := range r.sequence(n, "allOf of "+of) {
			if ref := r.required(item, r.mapping(item, "allOf of "+of, "$ref"), "$ref", "allOf of "+of); ref != nil {
				t.Embeds = append(t.Embeds, r.ref(ref))
			}
		}
	}
	if n := m.get("properties"); n != nil {
		for _, e := range r.mapping(n, "properties of "+of).entries {
			r.property(t, e)
		}
	}
	if n := m.get("required"); n != nil {
		r.requires(t, n, of)
	}
}

func (r *reader) requires(t *Type, n *yaml.Node, of string) {
	for _, item := range r.sequence(n, "required of "+of) {
		if r.text(item, "a name in required") == nil {
			continue
		}
		p := t.property(item.Value)
		switch {
		case p == nil:
			r.fail(item, "%s requires %q, which is not among its properties", of, item.Value)
		case p.Required:
			r.fail(item, "%s requires %q twice", of, item.Value)
		default:
			p.Required = true
		}
	}
}

func (t *Type) property(name string) *Property {
	for _, p := range t.Properties {
		if p.Name == name {
			return p
		}
	}
	return nil
}

func (r *reader) property(t *Type, e entry) {
	name := e.key.Value
	of := fmt.Sprintf("property %q", name)
	if !memberName.MatchString(name) {
		r.fail(e.key, "%s is not a name in camelCase that begins with a small letter", of)
	}
	p := &Property{Pos: r.at(e.key), Name: name}
	t.Properties = append(t.Properties, p) // even when its shape is wrong: it may be required
	value := e.value
	if value.Kind == yaml.MappingNode {
		m := r.quietly(value)
		p.Description = r.description(e.key, m, of)
		if mark := m.get(personalKey); mark != nil {
			p.Personal = r.personal(mark, of)
			value = without(value, personalKey)
		}
	}
	p.Shape = r.shape(value, of, strings.TrimSuffix(t.Name, "Event")+goname.Exported(name))
	if p.Personal == Subject && p.Shape.Kind != String && p.Shape.Kind != UUID {
		r.fail(e.key, "%s names the subject of the event, so it must be a string", of)
	}
}

// personalKey marks properties. Elements of lists and maps have no such key: the property that has the list is marked.
const personalKey = "x-personal"

func (r *reader) personal(n *yaml.Node, of string) Personal {
	switch {
	case n.Tag == "!!bool" && n.Value == "true":
		return Data
	case n.Tag == "!!str" && n.Value == "subject":
		return Subject
	default:
		r.fail(n, "%s of %s is true for what is about a person, or subject for what names that person; otherwise leave it out", personalKey, of)
		return Impersonal
	}
}

// without is a mapping without one of its keys, where that is for the first time.
func without(n *yaml.Node, key string) *yaml.Node {
	rest := *n
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			rest.Content = slices.Delete(slices.Clone(n.Content), i, i+2)
			break
		}
	}
	return &rest
}

// shape reads the type of a value. A type that is nested in it is declared as name.
func (r *reader) shape(n *yaml.Node, of, name string) *Shape {
	m := r.mapping(n, of, "type", "format", "description", "$ref", "items", "additionalProperties", "enum", "required", "properties")
	if !m.ok {
		return new(Shape)
	}
	if ref := m.get("$ref"); ref != nil {
		r.only(m, of+", a $ref,", "$ref", "description")
		if r.text(ref, "$ref") == nil {
			return new(Shape)
		}
		return &Shape{Kind: Named, Ref: r.ref(ref)}
	}
	kind := r.required(n, m, "type", of)
	if kind == nil {
		return new(Shape)
	}
	switch kind.Value {
	case "string":
		return r.stringShape(m, of, name)
	case "boolean":
		r.only(m, of+", a boolean,", "type", "description")
		return &Shape{Kind: Boolean}
	case "integer":
		return &Shape{Kind: r.format(m, of, "integer", map[string]Kind{"": Integer, "int32": Int32, "int64": Int64})}
	case "number":
		return &Shape{Kind: r.format(m, of, "number", map[string]Kind{"": Number, "double": Number})}
	case "array":
		return r.arrayShape(n, m, of, name)
	case "object":
		return r.objectShape(n, m, of, name)
	}
	r.fail(kind, "%s has the unknown type %q: there are string, boolean, integer, number, array and object", of, kind.Value)
	return new(Shape)
}

func (r *reader) stringShape(m mapping, of, name string) *Shape {
	if m.get("enum") == nil {
		return &Shape{Kind: r.format(m, of, "string", map[string]Kind{"": String, "uuid": UUID, "date-time": Time})}
	}
	r.only(m, of+", an enum,", "type", "description", "enum")
	return r.nested(m, name, func(t *Type) { r.enum(t, m, of) })
}

func (r *reader) arrayShape(n *yaml.Node, m mapping, of, name string) *Shape {
	r.only(m, of+", an array,", "type", "description", "items")
	items := m.get("items")
	if items == nil {
		r.fail(n, "%s, an array, has no items", of)
		return new(Shape)
	}
	return &Shape{Kind: Array, Elem: r.shape(items, "items of "+of, name+"Item")}
}

func (r *reader) objectShape(n *yaml.Node, m mapping, of, name string) *Shape {
	if values := m.get("additionalProperties"); values != nil {
		r.only(m, of+", a map,", "type", "description", "additionalProperties")
		return &Shape{Kind: Map, Elem: r.shape(values, "additionalProperties of "+of, name+"Value")}
	}
	if m.get("properties") == nil {
		r.fail(n, "%s, an object, has neither properties nor additionalProperties", of)
		return new(Shape)
	}
	return r.nested(m, name, func(t *Type) { r.object(t, m, of) })
}

// nested declares a type that is written inside another.
func (r *reader) nested(m mapping, name string, fill func(*Type)) *Shape {
	at := r.at(m.entries[0].key)
	t := &Type{Pos: at, Name: name}
	if d := m.get("description"); d != nil && d.Kind == yaml.ScalarNode {
		t.Description = strings.Join(strings.Fields(d.Value), " ")
	}
	r.out.Types = append(r.out.Types, t)
	fill(t)
	return &Shape{Kind: Named, Ref: &Ref{Pos: at, Name: name, Type: t}}
}

func (r *reader) enum(t *Type, m mapping, of string) {
	t.Kind = Enum
	r.only(m, of+", an enum,", "type", "description", "enum")
	n := m.get("enum")
	seen := map[string]bool{}
	for _, item := range r.sequence(n, "enum of "+of) {
		switch {
		case r.text(item, "a value of enum") == nil:
		case seen[item.Value]:
			r.fail(item, "%s has the value %q twice", of, item.Value)
		case goname.Exported(item.Value) == "":
			r.fail(item, "value %q of %s has no letter or digit", item.Value, of)
		default:
			seen[item.Value] = true
			t.Values = append(t.Values, Value{r.at(item), item.Value})
		}
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		r.fail(n, "%s has an enum without values", of)
	}
}

// format reads the format of a plain value.
func (r *reader) format(m mapping, of, kind string, known map[string]Kind) Kind {
	r.only(m, of+", of type "+kind+",", "type", "format", "description")
	n := m.get("format")
	if n == nil {
		return known[""]
	}
	if r.text(n, "format") == nil {
		return Invalid
	}
	k, ok := known[n.Value]
	if !ok {
		r.fail(n, "%s has the unknown format %q for type %s", of, n.Value, kind)
	}
	return k
}

// ref reads a $ref: #/components/schemas/Name, or other.yaml#/components/schemas/Name.
func (r *reader) ref(n *yaml.Node) *Ref {
	ref := &Ref{Pos: r.at(n), file: r.name}
	file, name, ok := strings.Cut(n.Value, "#/components/schemas/")
	if !ok || name == "" {
		r.fail(n, "$ref %q is not of the form #/components/schemas/Name or other.yaml#/components/schemas/Name", n.Value)
		return ref
	}
	if file != "" {
		ref.file = strings.TrimPrefix(file, "./")
	}
	ref.Name = name
	return ref
}

// only notes a mistake for every key that makes no sense in this kind of value.
func (r *reader) only(m mapping, of string, allowed ...string) {
	for _, e := range m.entries {
		found := false
		for _, a := range allowed {
			found = found || a == e.key.Value
		}
		if !found {
			r.fail(e.key, "%s cannot have %s", of, e.key.Value)
		}
	}
}

// quietly reads a mapping that is read again, with its mistakes noted, by someone else.
func (r *reader) quietly(n *yaml.Node) mapping {
	silent := reader{path: r.path, errs: new(Errors)}
	return silent.mapping(n, "")
}
