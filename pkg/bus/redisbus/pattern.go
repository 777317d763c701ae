package redisbus

import "strings"

func isPattern(s string) bool { return strings.ContainsAny(s, "*#") }

// matches reports whether a topic is one of a pattern's: "*" is one word, "#" any number.
func matches(pattern, topic string) bool {
	if pattern == topic || pattern == "#" {
		return true
	}
	if !isPattern(pattern) {
		return false
	}
	word, rest, more := strings.Cut(pattern, ".")
	if word == "#" {
		for {
			if matches(rest, topic) {
				return true
			}
			var found bool
			if _, topic, found = strings.Cut(topic, "."); !found {
				return false
			}
		}
	}
	first, remaining, longer := strings.Cut(topic, ".")
	if word != "*" && word != first {
		return false
	}
	switch {
	case more && longer:
		return matches(rest, remaining)
	case more:
		return strings.Trim(rest, "#.") == "" // what is left may be nothing
	default:
		return !longer
	}
}

func matchesAny(patterns []string, topic string) bool {
	for _, p := range patterns {
		if matches(p, topic) {
			return true
		}
	}
	return false
}
