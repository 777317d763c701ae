package sagas

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// ErrDefinition reports a definition that no saga can be made of.
var ErrDefinition = errors.New("the definition of the saga is not usable")

// A Saga is a definition that was checked. It is immutable.
type Saga struct {
	name     string
	version  int
	start    []transition
	states   []*stage
	byName   map[string]*stage
	policies Policies
	retry    Retry
	sources  map[string]source // by topic
	begin    jsontext.Value    // the data that an instance begins with
}

// A stage is a state without the type of the data.
type stage struct {
	name      string
	do, undo  command
	on        []transition
	end       bool
	noUndo    bool
	noTimeout bool
}

// A transition is an On without the type of the data.
type transition struct {
	kind  Kind
	topic string
	after time.Duration
	to    []string
	takes func(body jsontext.Value) bool // nil: whatever it says
	run   func(data, body jsontext.Value) (next string, changed jsontext.Value, err error)
}

// A command is a Command without the type of the data.
type command struct {
	topic, target, method, until string
	event                        func(data jsontext.Value) (bus.Event, error)
	body                         func(data jsontext.Value) (jsontext.Value, error)
}

func (c *command) none() bool   { return c.topic == "" && c.target == "" }
func (c *command) isCall() bool { return c.target != "" }

// Name is the definition's.
func (s *Saga) Name() string { return s.name }

// Version is the definition's.
func (s *Saga) Version() int { return s.version }

// Topics are those that the saga listens to, sorted.
func (s *Saga) Topics() []string { return slices.Sorted(maps.Keys(s.sources)) }

// Key is that of the instance that an event of a topic belongs to.
func (s *Saga) Key(topic string, body []byte) (string, error) {
	source, there := s.sources[topic]
	if !there {
		return "", fmt.Errorf("saga %q does not listen to %q", s.name, topic)
	}
	return keyOf(source, body)
}

// Build checks the definition. Its error, ErrDefinition, tells all that is wrong with it.
func (d Definition[S]) Build() (*Saga, error) {
	s := &Saga{name: d.Name, version: d.Version, byName: map[string]*stage{}, sources: map[string]source{}, policies: d.Policies, retry: d.Retry}
	if s.version == 0 {
		s.version = 1
	}
	var errs []error
	var err error
	if s.begin, err = json.Marshal(new(S)); err != nil {
		errs = append(errs, fmt.Errorf("its data is not JSON: %w", err))
	}
	for _, on := range d.Start {
		s.start = append(s.start, compiled(s, on))
	}
	for _, state := range d.States {
		st := &stage{name: state.Name, do: commanded(state.Do), undo: commanded(state.Undo), end: state.End, noUndo: state.NoUndo, noTimeout: state.NoTimeout}
		for _, c := range []Command[S]{state.Do, state.Undo} {
			if c.until.topic != "" {
				s.sources[c.until.topic] = c.until
			}
			if !c.none() && c.event == nil && c.body == nil {
				errs = append(errs, fmt.Errorf("state %q: its command has no function that makes it", state.Name))
			}
		}
		for _, on := range state.On {
			st.on = append(st.on, compiled(s, on))
		}
		if s.byName[st.name] != nil {
			errs = append(errs, fmt.Errorf("state %q is there twice", st.name))
		}
		s.states, s.byName[st.name] = append(s.states, st), st
	}
	if err := errors.Join(append(errs, s.check()...)...); err != nil {
		return nil, fmt.Errorf("%w: saga %q: %w", ErrDefinition, d.Name, err)
	}
	return s, nil
}

func compiled[S any](s *Saga, on On[S]) transition {
	if on.kind == KindEvent {
		if _, there := s.sources[on.source.topic]; !there {
			s.sources[on.source.topic] = on.source
		}
	}
	return transition{kind: on.kind, topic: on.source.topic, after: on.after, to: on.to, takes: on.takes, run: func(data, body jsontext.Value) (next string, changed jsontext.Value, err error) {
		defer recovered(&err)
		value := new(S)
		if err := decode(data, value); err != nil {
			return "", nil, fmt.Errorf("the data of the instance: %w", err)
		}
		if next, err = on.apply(value, body); err != nil {
			return "", nil, err
		}
		changed, err = json.Marshal(value)
		return next, changed, err
	}}
}

func commanded[S any](c Command[S]) command {
	own := command{topic: c.topic, target: c.target, method: c.method, until: c.until.topic}
	own.event = func(data jsontext.Value) (e bus.Event, err error) {
		defer recovered(&err)
		value := new(S)
		if err := decode(data, value); err != nil {
			return nil, err
		}
		if e = c.event(value); e == nil {
			err = errors.New("the command made no event")
		}
		return e, err
	}
	own.body = func(data jsontext.Value) (body jsontext.Value, err error) {
		defer recovered(&err)
		value := new(S)
		if err := decode(data, value); err != nil {
			return nil, err
		}
		return json.Marshal(c.body(value))
	}
	return own
}

func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("the definition panicked: %v", r)
	}
}

func decode(data []byte, into any) error {
	if len(data) == 0 {
		return nil
	}
	return json.Unmarshal(data, into)
}

var word = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,47}$`)

// check tells what is wrong.
func (s *Saga) check() (errs []error) {
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !word.MatchString(s.name) {
		wrong("its name has to be lower-case letters, digits and dashes, 1 to 48 bytes")
	}
	if s.version < 1 {
		wrong("its version is %d, and has to be 1 or more", s.version)
	}
	s.completePolicies(wrong)
	s.completeRetry(wrong)
	if len(s.start) == 0 {
		wrong("nothing starts it")
	}
	ends := false
	for _, st := range s.states {
		ends = ends || st.end
		s.checkState(st, wrong)
	}
	if !ends {
		wrong("no state is an end")
	}
	s.checkOn("the start", s.start, wrong)
	for _, t := range s.start {
		if t.kind != KindEvent {
			wrong("the start waits for events only, not for %s", t.kind)
		}
	}
	if len(errs) == 0 {
		s.checkWays(wrong)
	}
	return errs
}

func (s *Saga) completePolicies(wrong func(string, ...any)) {
	p := &s.policies
	for _, one := range []struct {
		policy *Policy
		usual  Policy
		name   string
	}{{&p.Early, Keep, "Early"}, {&p.Late, Ignore, "Late"}, {&p.Duplicate, Ignore, "Duplicate"}, {&p.Unknown, DeadLetter, "Unknown"}} {
		switch *one.policy {
		case "":
			*one.policy = one.usual
		case Ignore, Park, DeadLetter:
		case Keep:
			if one.name != "Early" {
				wrong("policy %s is %q, which is for Early alone", one.name, Keep)
			}
		default:
			wrong("policy %s is %q, which is none", one.name, *one.policy)
		}
	}
}

func (s *Saga) completeRetry(wrong func(string, ...any)) {
	r := &s.retry
	if r.Attempts < 0 || r.Pause < 0 || r.Timeout < 0 {
		wrong("what Retry says is not negative")
	}
	if r.Attempts == 0 {
		r.Attempts = 8
	}
	if r.Pause == 0 {
		r.Pause = time.Second
	}
	if r.Timeout == 0 {
		r.Timeout = 30 * time.Second
	}
}

func (s *Saga) checkState(st *stage, wrong func(string, ...any)) {
	if !word.MatchString(st.name) {
		wrong("state %q: its name has to be lower-case letters, digits and dashes, 1 to 48 bytes", st.name)
	}
	if st.name == Compensating {
		wrong("state %q: that is no name for a state; transitions go to it without one", st.name)
	}
	if st.end {
		if len(st.on) > 0 || !st.undo.none() || st.noUndo || st.noTimeout || st.do.isCall() {
			wrong("state %q is an end: it may publish an event, and waits for nothing", st.name)
		}
		return
	}
	switch {
	case st.do.none() && !st.undo.none():
		wrong("state %q has an undo and does nothing", st.name)
	case st.do.none() && st.noUndo:
		wrong("state %q says NoUndo and does nothing", st.name)
	case !st.do.none() && st.undo.none() && !st.noUndo:
		wrong("state %q does something: give it an Undo, or say NoUndo", st.name)
	case !st.undo.none() && st.noUndo:
		wrong("state %q has an Undo, and says NoUndo", st.name)
	}
	if st.do.until != "" {
		wrong("state %q: Until is for undoing; what follows Do stands in On", st.name)
	}
	if st.undo.isCall() && st.undo.until != "" {
		wrong("state %q: an undo that is a call has succeeded when it is answered, and has no Until", st.name)
	}
	for _, other := range s.states {
		if other == st {
			break
		}
		if st.undo.until != "" && other.undo.until == st.undo.until {
			wrong("states %q and %q: both undos wait Until %s, and what confirms one of them would confirm the other; give each a topic of its own", other.name, st.name, st.undo.until)
		}
	}
	s.checkOn(fmt.Sprintf("state %q", st.name), st.on, wrong)
	kinds := map[Kind]bool{}
	for _, t := range st.on {
		kinds[t.kind] = true
	}
	switch calls := st.do.isCall(); {
	case calls && !kinds[KindAnswer]:
		wrong("state %q makes a call, and does not say what follows its answer: give it Answered", st.name)
	case !calls && (kinds[KindAnswer] || kinds[KindRefusal] || kinds[KindFailure]):
		wrong("state %q waits for the answer of a call, and makes none", st.name)
	case !calls && !kinds[KindEvent] && !kinds[KindTimeout]:
		wrong("state %q waits for nothing, and is no end", st.name)
	case !calls && !kinds[KindTimeout] && !st.noTimeout:
		wrong("state %q may wait for ever: give it After, or say NoTimeout", st.name)
	}
}

func (s *Saga) checkOn(where string, on []transition, wrong func(string, ...any)) {
	type trigger struct {
		kind  Kind
		topic string
	}
	seen := map[trigger]bool{}
	for _, t := range on {
		what := string(t.kind)
		if t.kind == KindEvent {
			what = "topic " + t.topic
		}
		if t.kind == "" {
			wrong("%s waits for something that no function of this package made", where)
			continue
		}
		if seen[trigger{t.kind, t.topic}] {
			wrong("%s waits twice for %s", where, what)
		}
		seen[trigger{t.kind, t.topic}] = true
		if t.kind == KindTimeout && t.after <= 0 {
			wrong("%s: After has to be more than 0", where)
		}
		if len(t.to) == 0 {
			wrong("%s goes nowhere at %s", where, what)
		}
		for _, to := range t.to {
			if to != Compensating && s.byName[to] == nil {
				wrong("%s goes to %q at %s, which is no state", where, to, what)
			}
		}
	}
}

// checkWays sees that every state can be reached, and that an end can be reached from each.
func (s *Saga) checkWays(wrong func(string, ...any)) {
	reached := map[string]bool{}
	next := s.start
	for len(next) > 0 {
		var further []transition
		for _, t := range next {
			for _, to := range t.to {
				if to != Compensating && !reached[to] {
					reached[to] = true
					further = append(further, s.byName[to].on...)
				}
			}
		}
		next = further
	}
	ending := map[string]bool{Compensating: true}
	for found := true; found; {
		found = false
		for _, st := range s.states {
			if ending[st.name] {
				continue
			}
			ok := st.end
			for _, t := range st.on {
				for _, to := range t.to {
					ok = ok || ending[to]
				}
			}
			ending[st.name], found = ok, found || ok
		}
	}
	for _, st := range s.states {
		if !reached[st.name] {
			wrong("state %q cannot be reached", st.name)
		} else if !ending[st.name] {
			wrong("from state %q no end can be reached", st.name)
		}
	}
}
