// Package routes finds who is bound to a topic, as a topic exchange does: "*" in a pattern is one word, "#" any number.
package routes

import (
	"slices"
	"strings"
)

// Tree is a topic exchange's bindings, by words, so that the cost of a message does not depend on how many bindings there
// are but on how many of them match. The zero value is empty. It is not safe for concurrent use.
type Tree[T comparable] struct {
	next  map[string]*Tree[T] // by word; "*" and "#" are the wildcards' own branches
	bound []T                 // by the pattern that ends here
}

// Add binds by a pattern.
func (r *Tree[T]) Add(pattern string, who T) {
	for word := range strings.SplitSeq(pattern, ".") {
		if r.next == nil {
			r.next = make(map[string]*Tree[T])
		}
		if r.next[word] == nil {
			r.next[word] = &Tree[T]{}
		}
		r = r.next[word]
	}
	r.bound = append(r.bound, who)
}

// Remove takes the binding away, and the branches that nothing hangs on any more.
func (r *Tree[T]) Remove(pattern string, who T) {
	word, rest, more := strings.Cut(pattern, ".")
	branch := r.next[word]
	if branch == nil {
		return
	}
	if more {
		branch.Remove(rest, who)
	} else {
		branch.bound = slices.DeleteFunc(branch.bound, func(other T) bool { return other == who })
	}
	if len(branch.bound) == 0 && len(branch.next) == 0 {
		delete(r.next, word)
	}
}

// Match is who is bound by a pattern that the topic matches, each once, in no order.
func (r *Tree[T]) Match(topic string) []T {
	var found []T
	r.walk(strings.Split(topic, "."), &found)
	if len(found) < 2 {
		return found
	}
	seen := make(map[T]struct{}, len(found))
	return slices.DeleteFunc(found, func(who T) bool {
		_, again := seen[who]
		seen[who] = struct{}{}
		return again
	})
}

func (r *Tree[T]) walk(words []string, found *[]T) {
	if branch := r.next["#"]; branch != nil {
		for skipped := range len(words) + 1 {
			branch.walk(words[skipped:], found)
		}
	}
	if len(words) == 0 {
		*found = append(*found, r.bound...)
		return
	}
	if branch := r.next[words[0]]; branch != nil && words[0] != "*" && words[0] != "#" {
		branch.walk(words[1:], found)
	}
	if branch := r.next["*"]; branch != nil {
		branch.walk(words[1:], found)
	}
}
