package memorybus

import (
	"slices"
	"strings"
)

// routes is a topic exchange's bindings: a tree by words, so that the cost of a message does not depend on how many
// bindings there are but on how many of them match.
type routes struct {
	next   map[string]*routes // by word; "*" and "#" are the wildcards' own branches
	queues []*queue           // bound by the pattern that ends here
}

func (r *routes) add(pattern string, q *queue) {
	for word := range strings.SplitSeq(pattern, ".") {
		if r.next == nil {
			r.next = make(map[string]*routes)
		}
		if r.next[word] == nil {
			r.next[word] = &routes{}
		}
		r = r.next[word]
	}
	r.queues = append(r.queues, q)
}

// remove takes the binding away, and the branches that nothing hangs on any more.
func (r *routes) remove(pattern string, q *queue) {
	word, rest, more := strings.Cut(pattern, ".")
	branch := r.next[word]
	if branch == nil {
		return
	}
	if more {
		branch.remove(rest, q)
	} else {
		branch.queues = slices.DeleteFunc(branch.queues, func(other *queue) bool { return other == q })
	}
	if len(branch.queues) == 0 && len(branch.next) == 0 {
		delete(r.next, word)
	}
}

// match is the queues bound by a pattern that the topic matches, each once.
func (r *routes) match(topic string) []*queue {
	var found []*queue
	r.walk(strings.Split(topic, "."), &found)
	if len(found) < 2 {
		return found
	}
	seen := make(map[*queue]struct{}, len(found))
	return slices.DeleteFunc(found, func(q *queue) bool {
		_, again := seen[q]
		seen[q] = struct{}{}
		return again
	})
}

func (r *routes) walk(words []string, found *[]*queue) {
	if branch := r.next["#"]; branch != nil {
		for skipped := range len(words) + 1 {
			branch.walk(words[skipped:], found)
		}
	}
	if len(words) == 0 {
		*found = append(*found, r.queues...)
		return
	}
	if branch := r.next[words[0]]; branch != nil && words[0] != "*" && words[0] != "#" {
		branch.walk(words[1:], found)
	}
	if branch := r.next["*"]; branch != nil {
		branch.walk(words[1:], found)
	}
}
