package schema

// check resolves the names in a set and notes what does not fit together.
func check(set *Set, errs *Errors) {
	c := checker{
		set: set, errs: errs,
		types: map[string]*Type{}, home: map[*Type]string{}, topics: map[string]*Topic{}, used: map[*Type]bool{},
	}
	c.declare()
	c.resolveTopics()
	c.resolveProperties()
	c.members()
	c.cycles()
	c.persons()
	c.subscriptions()
	c.unused()
	names(set, errs)
}

type checker struct {
	set    *Set
	errs   *Errors
	types  map[string]*Type
	home   map[*Type]string // the file's name in the folder
	topics map[string]*Topic
	used   map[*Type]bool
}

func (c *checker) declare() {
	for _, f := range c.set.Files {
		for _, t := range f.Topics {
			if before := c.topics[t.Name]; before != nil {
				c.errs.Add(t.Pos, "topic %q is already declared in %s", t.Name, before.Pos)
				continue
			}
			c.topics[t.Name] = t
		}
		for _, t := range f.Types {
			c.home[t] = f.Owner + ".yaml"
			if before := c.types[t.Name]; before != nil {
				c.errs.Add(t.Pos, "type %q is already declared in %s", t.Name, before.Pos)
				continue
			}
			c.types[t.Name] = t
		}
	}
}

func (c *checker) resolveTopics() {
	for _, f := range c.set.Files {
		for _, t := range f.Topics {
			t.Event.Type = c.types[t.Event.Name]
			switch {
			case t.Event.Name == "":
			case t.Event.Type == nil:
				c.errs.Add(t.Event.Pos, "topic %q carries the unknown type %q", t.Name, t.Event.Name)
			case t.Event.Type.Kind == Enum:
				c.errs.Add(t.Event.Pos, "topic %q carries %q, which is an enum: an event is an object", t.Name, t.Event.Name)
			default:
				t.Event.Type.Event = true
				c.used[t.Event.Type] = true
			}
		}
	}
}

func (c *checker) resolveProperties() {
	for _, f := range c.set.Files {
		for _, t := range f.Types {
			for _, e := range t.Embeds {
				c.resolve(e)
				if e.Type != nil && e.Type.Kind == Enum {
					c.errs.Add(e.Pos, "allOf names %q, which is an enum: only an object's properties can be taken over", e.Name)
					e.Type = nil
				}
			}
			for _, p := range t.Properties {
				for s := p.Shape; s != nil; s = s.Elem {
					if s.Kind == Named && s.Ref.Type == nil {
						c.resolve(s.Ref)
					} else if s.Kind == Named {
						c.used[s.Ref.Type] = true
					}
				}
			}
		}
	}
}

// resolve finds the type that a $ref names.
func (c *checker) resolve(r *Ref) {
	if r.Name == "" {
		return
	}
	t := c.types[r.Name]
	switch {
	case t == nil:
		c.errs.Add(r.Pos, "$ref names the unknown type %q", r.Name)
	case c.home[t] != r.file:
		c.errs.Add(r.Pos, "$ref names the type %q of %s, which is declared in %s", r.Name, r.file, t.Pos)
	case t.Event:
		c.errs.Add(r.Pos, "$ref names %q, which is an event and cannot be part of another type", r.Name)
	default:
		r.Type = t
		c.used[t] = true
	}
}

// members looks for properties that an object has twice: of its own, taken over, or of every event.
func (c *checker) members() {
	for _, f := range c.set.Files {
		for _, t := range f.Types {
			has := map[string]Pos{}
			for _, e := range t.Embeds {
				if e.Type == nil {
					continue
				}
				for _, p := range e.Type.Properties {
					if before, dup := has[p.Name]; dup {
						c.errs.Add(e.Pos, "type %q has the property %q already, from %s", t.Name, p.Name, before)
					}
					has[p.Name] = p.Pos
					c.base(t, p, e.Pos)
				}
				if len(e.Type.Embeds) > 0 {
					c.errs.Add(e.Pos, "allOf names %q, which has an allOf of its own: name what it takes over here instead", e.Name)
				}
			}
			for _, p := range t.Properties {
				if before, dup := has[p.Name]; dup {
					c.errs.Add(p.Pos, "type %q has the property %q already, from %s", t.Name, p.Name, before)
				}
				c.base(t, p, p.Pos)
			}
		}
	}
}

func (c *checker) base(t *Type, p *Property, at Pos) {
	if t.Event && (p.Name == "eventId" || p.Name == "timestamp") {
		c.errs.Add(at, "event %q cannot have the property %q of its own: every event has it", t.Name, p.Name)
	}
}

// cycles looks for objects that would have to contain themselves. In an array or a map they may.
func (c *checker) cycles() {
	const (
		open = 1
		done = 2
	)
	state := map[*Type]int{}
	var visit func(t *Type)
	follow := func(r *Ref) {
		if r.Type == nil {
			return
		}
		if state[r.Type] == open {
			c.errs.Add(r.Pos, "type %q contains itself: an object can do so in an array or a map only", r.Type.Name)
			return
		}
		visit(r.Type)
	}
	visit = func(t *Type) {
		if state[t] != 0 {
			return
		}
		state[t] = open
		for _, e := range t.Embeds {
			follow(e)
		}
		for _, p := range t.Properties {
			if p.Shape != nil && p.Shape.Kind == Named {
				follow(p.Shape.Ref)
			}
		}
		state[t] = done
	}
	for _, f := range c.set.Files {
		for _, t := range f.Types {
			visit(t)
		}
	}
}

func (c *checker) subscriptions() {
	for _, f := range c.set.Files {
		type key struct{ topic, handler string }
		seen := map[key]Pos{}
		for _, s := range f.Subscriptions {
			c.subscription(s)
			if s.Topic == "" || s.Handler == "" {
				continue
			}
			if before, dup := seen[key{s.Topic, s.Handler}]; dup {
				c.errs.Add(s.Pos, "handler %q is subscribed to topic %q already in %s", s.Handler, s.Topic, before)
			}
			seen[key{s.Topic, s.Handler}] = s.Pos
		}
	}
}

func (c *checker) subscription(s *Subscription) {
	topic := c.topics[s.Topic]
	if topic == nil && s.Topic != "" {
		c.errs.Add(s.topicPos, "subscription to the topic %q, which no schema declares", s.Topic)
	}
	if s.Event.Name == "" {
		return
	}
	s.Event.Type = c.types[s.Event.Name]
	if s.Event.Type == nil {
		c.errs.Add(s.Event.Pos, "subscription to %q expects the unknown type %q", s.Topic, s.Event.Name)
	} else if topic != nil && topic.Event.Name != "" && topic.Event.Name != s.Event.Name {
		c.errs.Add(s.Event.Pos, "subscription to %q expects %s, but the topic carries %s (%s)",
			s.Topic, s.Event.Name, topic.Event.Name, topic.Event.Pos)
	}
}

func (c *checker) unused() {
	for _, f := range c.set.Files {
		for _, t := range f.Types {
			if !c.used[t] && c.types[t.Name] == t {
				c.errs.Add(t.Pos, "type %q is not used: no topic carries it and no $ref names it", t.Name)
			}
		}
	}
}
