package schema

// persons looks for marks where nobody heeds them: what is encrypted is a property of the event or of an object in it, and elements of lists and maps
// are none. And a property that is encrypted as a whole has nothing marked in it.
func (c *checker) persons() {
	if len(*c.errs) > 0 {
		return // types may contain themselves
	}
	for _, f := range c.set.Files {
		for _, t := range f.Types {
			if subjects := t.subjects(); t.Event && len(subjects) > 1 {
				c.errs.Add(subjects[1].Pos, "event %q has two subjects, %q and %q", t.Name, subjects[0].Name, subjects[1].Name)
			}
			for _, p := range t.Properties {
				if inner := p.Shape.marked(map[*Type]bool{}, p.Personal == Data); inner != nil {
					c.errs.Add(inner.Pos, "property %q is within %q of type %q, where x-personal has no effect: mark that one instead", inner.Name, p.Name, t.Name)
				}
			}
		}
	}
}

// subjects are the properties that name whom an event is about: its own, those taken over, and those of objects in it.
func (t *Type) subjects() (found []*Property) {
	for _, e := range t.Embeds {
		found = append(found, e.Type.subjects()...)
	}
	for _, p := range t.Properties {
		if p.Personal == Subject {
			found = append(found, p)
		}
		if p.Shape.Kind == Named {
			found = append(found, p.Shape.Ref.Type.subjects()...)
		}
	}
	return found
}

// marked is a property with a mark within elements of lists and maps, or anywhere, nil if there is none.
func (s *Shape) marked(seen map[*Type]bool, anywhere bool) *Property {
	for ; s.Kind == Array || s.Kind == Map; s = s.Elem {
		anywhere = true
	}
	if s.Kind != Named || seen[s.Ref.Type] {
		return nil
	}
	seen[s.Ref.Type] = true
	return s.Ref.Type.marked(seen, anywhere)
}

func (t *Type) marked(seen map[*Type]bool, anywhere bool) *Property {
	for _, e := range t.Embeds {
		if p := e.Type.marked(seen, anywhere); p != nil {
			return p
		}
	}
	for _, p := range t.Properties {
		if anywhere && p.Personal != Impersonal {
			return p
		}
		if inner := p.Shape.marked(seen, anywhere); inner != nil {
			return inner
		}
	}
	return nil
}
