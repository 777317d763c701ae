package sagas

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Diagram is a saga to be drawn, in which the present state of an instance may be marked.
type Diagram struct {
	saga *Saga
	now  *Instance
}

// Diagram draws the saga. now is an instance whose state is marked; nil: none.
func (s *Saga) Diagram(now *Instance) Diagram { return Diagram{s, now} }

// An edge is all transitions from one state to another one.
type edge struct {
	from, to string // from is empty for the start
	labels   []string
}

// edges are in the order of the definition.
func (d Diagram) edges() []edge {
	var all []edge
	add := func(from string, on []transition) {
		for _, t := range on {
			for _, to := range t.to {
				n := slices.IndexFunc(all, func(e edge) bool { return e.from == from && e.to == to })
				if n < 0 {
					n = len(all)
					all = append(all, edge{from: from, to: to})
				}
				all[n].labels = append(all[n].labels, t.label())
			}
		}
	}
	add("", d.saga.start)
	for _, st := range d.saga.states {
		add(st.name, st.on)
	}
	return all
}

func (t *transition) label() string {
	switch t.kind {
	case KindEvent:
		return t.topic
	case KindTimeout:
		return "after " + brief(t.after)
	case KindAnswer:
		return "answered"
	case KindRefusal:
		return "refused"
	case KindFailure:
		return "failed"
	default:
		return string(t.kind)
	}
}

// brief is a duration without zeros at its end.
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// says is a command for people.
func (c *command) says() string {
	switch {
	case c.isCall() && strings.HasPrefix(c.method, c.target+"/"): // the paths of a service begin with its name
		return "call " + c.method
	case c.isCall():
		return "call " + c.target + "/" + c.method
	case c.topic != "":
		return "publish " + c.topic
	default:
		return ""
	}
}

// compensates reports whether something leads to compensation.
func compensates(edges []edge) bool {
	return slices.ContainsFunc(edges, func(e edge) bool { return e.to == Compensating })
}

// present is the state that is marked, and how: as "running".
func (d Diagram) present() (state string, status Status) {
	if d.now == nil {
		return "", ""
	}
	status = d.now.Status
	switch {
	case status == Undoing || status == Parked && d.now.Parked.From == Undoing:
		return Compensating, status
	case status == Compensated:
		return string(Compensated), status
	default:
		return d.now.State, status
	}
}

// Mermaid is the diagram in the language of Mermaid, a stateDiagram-v2.
func (d Diagram) Mermaid() string {
	var text strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	id := func(name string) string { return strings.ReplaceAll(name, "-", "_") }
	say("stateDiagram-v2")
	for _, st := range d.saga.states {
		label := st.name
		if do := st.do.says(); do != "" {
			label += `\n` + do
		}
		if undo := st.undo.says(); undo != "" {
			label += `\nundo: ` + undo
		}
		say(`    state "%s" as %s`, label, id(st.name))
	}
	edges := d.edges()
	for _, e := range edges {
		from := id(e.from)
		if e.from == "" {
			from = "[*]"
		}
		say("    %s --> %s: %s", from, id(e.to), strings.Join(e.labels, ", "))
	}
	for _, st := range d.saga.states {
		if st.end {
			say("    %s --> [*]", id(st.name))
		}
	}
	if compensates(edges) {
		say("    %s --> %s", Compensating, Compensated)
		say("    %s --> [*]", Compensated)
	}
	if state, status := d.present(); state != "" {
		say("    classDef present fill:#ffe08a,stroke:#b8860b,stroke-width:3px")
		say("    classDef parked fill:#ffc9c0,stroke:#c0392b,stroke-width:3px")
		class := "present"
		if status == Parked {
			class = "parked"
		}
		say("    class %s %s", id(state), class)
	}
	return text.String()
}
