package schema

import "github.com/bannou-mesh/bannou/tools/eventgen/internal/goname"

// names notes schema names, different as they stand, that would become the same Go name.
func names(set *Set, errs *Errors) {
	global := scope{errs: errs, kind: "Go name"}
	for _, name := range []string{"Base", "Event", "Subscription", "New", "TypeName", "Topics", "Subscriptions"} {
		global.reserve(name)
	}
	for _, f := range set.Files {
		for _, t := range f.Topics {
			global.add(t.GoName(), t.Name, t.Pos)
		}
		for _, t := range f.Types {
			global.add(t.Name, t.Name, t.Pos)
			for _, v := range t.Values {
				global.add(t.Name+goname.Exported(v.Text), v.Text, v.Pos)
			}
			fields(t, errs)
		}
	}
}

func fields(t *Type, errs *Errors) {
	of := scope{errs: errs, kind: "field"}
	for _, name := range []string{"Base", "EventName", "Stamp"} {
		of.reserve(name)
	}
	for _, e := range t.Embeds {
		if e.Type != nil {
			of.reserve(e.Type.Name)
		}
	}
	for _, e := range t.Embeds {
		if e.Type != nil {
			for _, p := range e.Type.Properties {
				of.add(p.GoName(), p.Name, e.Pos)
			}
		}
	}
	for _, p := range t.Properties {
		of.add(p.GoName(), p.Name, p.Pos)
	}
}

// GoName is the name of the topic's constant. The suite's own name in front of a topic is left out of it.
func (t *Topic) GoName() string {
	name := t.Name
	if len(name) > len(suite) && name[:len(suite)] == suite {
		name = name[len(suite):]
	}
	return "Topic" + goname.Exported(name)
}

const suite = "bannou-"

// GoName is the name of the property's field.
func (p *Property) GoName() string { return goname.Exported(p.Name) }

// A scope is where Go names must differ.
type scope struct {
	errs *Errors
	kind string
	has  map[string]taken
}

type taken struct {
	by string // the name in the schema, empty if reserved
	at Pos
}

func (s *scope) reserve(name string) {
	if s.has == nil {
		s.has = map[string]taken{}
	}
	s.has[name] = taken{}
}

func (s *scope) add(name, by string, at Pos) {
	before, dup := s.has[name]
	switch {
	case !dup:
		s.has[name] = taken{by, at}
	case before.by == "":
		s.errs.Add(at, "%q needs the %s %s, which is taken by the package itself", by, s.kind, name)
	case before.by != by: // the same name twice is somebody else's mistake to note
		s.errs.Add(at, "%q needs the %s %s, which %q in %s has already", by, s.kind, name, before.by, before.at)
	}
}
