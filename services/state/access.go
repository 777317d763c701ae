package state

import (
	"fmt"
	"maps"
	"slices"

	"github.com/bannou-mesh/bannou/services/guard"
)

// Everyone in a Rule stands for every request, those without a token too.
const Everyone = guard.Everyone

// A Rule says which apps may use a store, by their app-ids. To write does not include to read.
type Rule struct {
	Read  []string
	Write []string
}

// Access is who may use which stores. A store without a rule is open to everyone. Its rules never change.
type Access struct {
	tokens *guard.Tokens
	rules  map[string]rights
}

// A right is what a request does with a store.
type right string

const (
	read  right = "read"
	write right = "write"
	list  right = "list" // of all stores, which no rule grants
)

// rights are the apps that have each right.
type rights map[right][]string

// NewAccess makes the access of the given rules, by store, to the apps that have tokens. A rule that names another app is an
// error.
func NewAccess(tokens *guard.Tokens, rules map[string]Rule) (*Access, error) {
	a := &Access{tokens: tokens, rules: make(map[string]rights, len(rules))}
	for _, store := range slices.Sorted(maps.Keys(rules)) {
		granted := rights{read: rules[store].Read, write: rules[store].Write}
		for _, r := range []right{read, write} {
			for _, id := range granted[r] {
				if id != Everyone && !tokens.Has(id) {
					return nil, fmt.Errorf("state: store %q: access.%s names the app %q, which has no token", store, r, id)
				}
			}
		}
		a.rules[store] = granted
	}
	return a, nil
}

// A caller is who a request says that it is from.
type caller struct {
	app     string // empty: none of those that are known
	claimed bool   // there is a token, known or not
}

// caller reads the value of a request's Authorization.
func (a *Access) caller(authorization []string) caller {
	token, given := guard.Bearer(authorization)
	if !given {
		return caller{}
	}
	return caller{app: a.tokens.App(token), claimed: true}
}

// guarded reports whether there is a rule for a store.
func (a *Access) guarded(store string) bool {
	if a == nil {
		return false
	}
	_, guarded := a.rules[store]
	return guarded
}

// allows reports whether a caller may do something with a store. No app is called "", so that unknown callers have the
// rights of everyone alone.
func (a *Access) allows(c caller, store string, r right) bool {
	if !a.guarded(store) {
		return true
	}
	granted := a.rules[store][r]
	return slices.Contains(granted, Everyone) || c.app != "" && slices.Contains(granted, c.app)
}
