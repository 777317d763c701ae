package facade

import (
	"fmt"

	"github.com/google/cel-go/cel"
)

// A rule is a Rule that can be evaluated.
type rule struct {
	path    string
	program cel.Program // nil: it matches everything
}

func compileRule(r Rule) (rule, error) {
	if r.Match == "" {
		return rule{path: r.Path}, nil
	}
	environment, err := cel.NewEnv(cel.Variable("event", cel.MapType(cel.StringType, cel.DynType)))
	if err != nil {
		return rule{}, fmt.Errorf("rules cannot be evaluated: %w", err)
	}
	checked, issues := environment.Compile(r.Match)
	if issues.Err() != nil {
		return rule{}, fmt.Errorf("the rule %q is no expression over event: %w", r.Match, issues.Err())
	}
	program, err := environment.Program(checked)
	if err != nil {
		return rule{}, fmt.Errorf("the rule %q: %w", r.Match, err)
	}
	return rule{path: r.Path, program: program}, nil
}

// matches evaluates the rule. What cannot be evaluated, such as a member that this event has not, does not match.
func (r rule) matches(event map[string]any) bool {
	if r.program == nil {
		return true
	}
	result, _, err := r.program.Eval(map[string]any{"event": event})
	if err != nil {
		return false
	}
	matched, is := result.Value().(bool)
	return is && matched
}
