package guard

import (
	"fmt"
	"maps"
	"slices"
)

// A Right is what a request does with a thing that may be reserved for apps, such as a store.
type Right string

// The rights.
const (
	Read  Right = "read"
	Write Right = "write"
	List  Right = "list" // of all things of the kind, which no rule grants
)

// An AccessRule says which apps may use a thing, by their app-ids. To write does not include to read.
type AccessRule struct {
	Read  []string
	Write []string
}

// Access is who may use which things of a kind. One without a rule is open to everyone, and all are where the Access is nil. Its rules
// never change.
type Access struct {
	tokens *Tokens
	rules  map[string]rights
}

// rights are the apps that have each right.
type rights map[Right][]string

// NewAccess makes the access of the given rules, by the name of a thing of the kind, such as "store", to the apps that have tokens. A rule
// that names another app is an error.
func NewAccess(tokens *Tokens, kind string, rules map[string]AccessRule) (*Access, error) {
	a := &Access{tokens: tokens, rules: make(map[string]rights, len(rules))}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		granted := rights{Read: rules[name].Read, Write: rules[name].Write}
		for _, r := range []Right{Read, Write} {
			for _, id := range granted[r] {
				if id != Everyone && !tokens.Has(id) {
					return nil, fmt.Errorf("%s %q: access.%s names the app %q, which has no token", kind, name, r, id)
				}
			}
		}
		a.rules[name] = granted
	}
	return a, nil
}

// A TokenHolder is the app whose token a request shows.
type TokenHolder struct {
	App     string // empty: none of those that are known
	Claimed bool   // there is a token, known or not
}

// Holder reads the value of a request's Authorization.
func (a *Access) Holder(authorization []string) TokenHolder {
	token, given := Bearer(authorization)
	if a == nil || !given {
		return TokenHolder{}
	}
	return TokenHolder{App: a.tokens.App(token), Claimed: true}
}

// Guarded reports whether there is a rule for a thing.
func (a *Access) Guarded(name string) bool {
	if a == nil {
		return false
	}
	_, guarded := a.rules[name]
	return guarded
}

// Names are the things that there are rules for, in their order.
func (a *Access) Names() []string {
	if a == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(a.rules))
}

// Allows reports whether an app may do something with a thing. No app is called "", so that unknown callers have the rights of everyone
// alone.
func (a *Access) Allows(h TokenHolder, name string, r Right) bool {
	if !a.Guarded(name) {
		return true
	}
	granted := a.rules[name][r]
	return slices.Contains(granted, Everyone) || h.App != "" && slices.Contains(granted, h.App)
}
