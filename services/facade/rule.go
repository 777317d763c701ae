package facade

import "fmt"

// A rule is a Rule that can be evaluated.
type rule struct {
	path  string
	match expression // nil: it matches everything
}

// compileRule reads the rule's expression, which is CEL in what rules of subscriptions are written in: members of event by . and [], strings,
// numbers, true, false, null and lists of them, == != < <= > >= in && || !, has() and size(), and of strings startsWith, endsWith, contains and matches.
// What else CEL has is an error that shows the place. The library for all of it would cost every node 2 MiB of memory, used or not.
func compileRule(r Rule) (rule, error) {
	if r.Match == "" {
		return rule{path: r.Path}, nil
	}
	p := parser{text: r.Match}
	match, err := p.whole()
	if err != nil {
		return rule{}, fmt.Errorf("the rule %q cannot be read: %w", r.Match, err)
	}
	return rule{path: r.Path, match: match}, nil
}

// matches evaluates the rule. What cannot be evaluated, such as a member that this event has not, does not match.
func (r rule) matches(event map[string]any) bool {
	if r.match == nil {
		return true
	}
	value, err := r.match(event)
	matched, is := value.(bool)
	return err == nil && is && matched
}
