package state

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// MinTokenBytes is the shortest token that an app may have.
const MinTokenBytes = 16

// Everyone in a Rule stands for every request, those without a token too.
const Everyone = "*"

// A Rule says which apps may use a store, by their app-ids. To write does not include to read.
type Rule struct {
	Read  []string
	Write []string
}

// Access is who may use which stores. A store without a rule is open to everyone. It never changes, and keeps digests of
// tokens, not the tokens.
type Access struct {
	apps  []app
	rules map[string]rights
}

// An app is one token of an app; an app may have several.
type app struct {
	id     string
	digest [sha256.Size]byte
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

// NewAccess makes the access of the given rules, by store, to the apps with the given tokens, by app-id. An app that has no
// token, a token that is short or that a header cannot carry, one that two apps have, and a rule that names an unknown app
// are errors; none of them repeats a token.
func NewAccess(tokens map[string][]string, rules map[string]Rule) (*Access, error) {
	a := &Access{rules: make(map[string]rights, len(rules))}
	for _, id := range slices.Sorted(maps.Keys(tokens)) {
		if err := a.add(id, tokens[id]); err != nil {
			return nil, fmt.Errorf("state: app %q %w", id, err)
		}
	}
	for _, store := range slices.Sorted(maps.Keys(rules)) {
		granted := rights{read: rules[store].Read, write: rules[store].Write}
		for _, r := range []right{read, write} {
			for _, id := range granted[r] {
				if _, known := tokens[id]; !known && id != Everyone {
					return nil, fmt.Errorf("state: store %q: access.%s names the app %q, which has no token", store, r, id)
				}
			}
		}
		a.rules[store] = granted
	}
	return a, nil
}

func (a *Access) add(id string, tokens []string) error {
	if id == "" || id == Everyone {
		return fmt.Errorf("has no name of an app; choose an app-id")
	}
	if len(tokens) == 0 {
		return fmt.Errorf("has no token")
	}
	for _, token := range tokens {
		switch {
		case len(token) < MinTokenBytes:
			return fmt.Errorf("has a token of %d bytes; make it of %d at least, such as by `openssl rand -base64 32`", len(token), MinTokenBytes)
		case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
			return fmt.Errorf("has a token with blanks or other characters that no header carries; make one by `openssl rand -base64 32`")
		}
		digest := sha256.Sum256([]byte(token))
		for _, other := range a.apps {
			if other.digest == digest {
				return fmt.Errorf("has a token that app %q has too; give each its own", other.id)
			}
		}
		a.apps = append(a.apps, app{id, digest})
	}
	return nil
}

// A caller is who a request says that it is from.
type caller struct {
	app     string // empty: none of those that are known
	claimed bool   // there is a token, known or not
}

// caller reads the value of a request's Authorization. Every token is compared in full, so that the time it takes says
// nothing of how much of it is right.
func (a *Access) caller(authorization []string) caller {
	switch len(authorization) {
	case 0:
		return caller{}
	case 1:
	default:
		return caller{claimed: true}
	}
	scheme, token, _ := strings.Cut(authorization[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return caller{claimed: true}
	}
	digest := sha256.Sum256([]byte(strings.TrimSpace(token)))
	found := -1
	for i := range a.apps {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(digest[:], a.apps[i].digest[:]), i, found)
	}
	if found < 0 {
		return caller{claimed: true}
	}
	return caller{app: a.apps[found].id, claimed: true}
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
