package gocode

import (
	"cmp"
	"slices"

	"github.com/bannou-mesh/bannou/tools/eventgen/internal/schema"
)

// registry writes the functions that know all topics. They are switches, not maps: nothing to initialise, nothing to
// change.
func (w *writer) registry(set *schema.Set) {
	var topics []*schema.Topic
	for _, f := range set.Files {
		topics = append(topics, f.Topics...)
	}
	slices.SortFunc(topics, func(a, b *schema.Topic) int { return cmp.Compare(a.Name, b.Name) })

	w.line("%sschemas/*.yaml; DO NOT EDIT.\n\npackage events\n", Marker)

	w.comment("", "New returns a new, empty event of the type that the topic carries, to be decoded into; false for an unknown topic.")
	w.line("func New(topic string) (Event, bool) {\n\tswitch topic {")
	for _, t := range topics {
		w.line("\tcase %s:\n\t\treturn new(%s), true", t.GoName(), t.Event.Name)
	}
	w.line("\tdefault:\n\t\treturn nil, false\n\t}\n}\n")

	w.comment("", "TypeName returns the name of the event that the topic carries, empty for an unknown topic.")
	w.line("func TypeName(topic string) string {\n\tswitch topic {")
	for _, t := range topics {
		w.line("\tcase %s:\n\t\treturn %q", t.GoName(), t.Event.Name)
	}
	w.line("\tdefault:\n\t\treturn \"\"\n\t}\n}\n")

	w.line("// Topics returns the names of all topics, sorted.")
	w.line("func Topics() []string {\n\treturn []string{")
	for _, t := range topics {
		w.line("\t\t%s,", t.GoName())
	}
	w.line("\t}\n}\n")

	w.subscriptions(set, topics)
}

func (w *writer) subscriptions(set *schema.Set, topics []*schema.Topic) {
	constant := map[string]string{}
	for _, t := range topics {
		constant[t.Name] = t.GoName()
	}
	w.comment("", "Subscriptions returns what a service listens to, in the order of its schema; nothing for a service that listens to nothing.")
	w.line("func Subscriptions(service string) []Subscription {\n\tswitch service {")
	for _, f := range set.Files {
		if len(f.Subscriptions) == 0 {
			continue
		}
		w.line("\tcase %q:\n\t\treturn []Subscription{", f.Owner)
		for _, s := range f.Subscriptions {
			w.line("\t\t\t{Topic: %s, Handler: %q, Event: %q},", constant[s.Topic], f.Owner+"."+s.Handler, s.Event.Name)
		}
		w.line("\t\t}")
	}
	w.line("\tdefault:\n\t\treturn nil\n\t}\n}")
}
