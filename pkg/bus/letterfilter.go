package bus

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// LetterFilter says which dead letters are meant: those that match all that is set. The zero value matches every one.
type LetterFilter struct {
	IDs           []string  // any of these
	Topic         string    // or a pattern: "*" is one word, "#" any number
	Queue         string    // the whole name
	Handler       string    // the whole name, as in Letter.Handler
	Reason        string    // one of the Discard reasons
	ErrorContains string    // a part of the exception's text, in upper or lower case
	Since         time.Time // given up at this time or later
	Until         time.Time // given up before
}

// IsZero reports whether the filter matches every letter.
func (f LetterFilter) IsZero() bool {
	return len(f.IDs) == 0 && f.Topic == "" && f.Queue == "" && f.Handler == "" && f.Reason == "" && f.ErrorContains == "" &&
		f.Since.IsZero() && f.Until.IsZero()
}

func (f LetterFilter) check() error {
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return fmt.Errorf("%w: the filter's since is not before its until, so nothing can match", ErrInvalid)
	}
	if len(f.Topic) > maxNameBytes {
		return fmt.Errorf("%w: the filter's topic has %d bytes, at most %d are allowed", ErrInvalid, len(f.Topic), maxNameBytes)
	}
	return nil
}

// matches reports whether a letter is meant. One that does not say when it was given up is outside every span of time.
func (f LetterFilter) matches(l *Letter) bool {
	switch {
	case len(f.IDs) > 0 && !slices.Contains(f.IDs, l.ID),
		f.Queue != "" && f.Queue != l.Queue,
		f.Handler != "" && f.Handler != l.Handler,
		f.Reason != "" && f.Reason != l.Reason,
		f.ErrorContains != "" && !strings.Contains(strings.ToLower(l.Exception), strings.ToLower(f.ErrorContains)),
		(!f.Since.IsZero() || !f.Until.IsZero()) && l.DiscardedAt.IsZero(),
		!f.Since.IsZero() && l.DiscardedAt.Before(f.Since),
		!f.Until.IsZero() && !l.DiscardedAt.Before(f.Until):
		return false
	}
	return f.Topic == "" || topicMatches(strings.Split(f.Topic, "."), strings.Split(l.Topic, "."))
}

// topicMatches compares a topic with a pattern, word by word.
func topicMatches(pattern, topic []string) bool {
	if len(pattern) == 0 {
		return len(topic) == 0
	}
	if pattern[0] == "#" {
		for skipped := range len(topic) + 1 {
			if topicMatches(pattern[1:], topic[skipped:]) {
				return true
			}
		}
		return false
	}
	return len(topic) > 0 && (pattern[0] == "*" || pattern[0] == topic[0]) && topicMatches(pattern[1:], topic[1:])
}
