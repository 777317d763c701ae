package bus

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// checkTopic is the grammar that the documentation gives, no more and no less.
func TestTopicGrammar(t *testing.T) {
	topic := regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`)
	pattern := regexp.MustCompile(`^([a-z0-9_-]+|\*|#)(\.([a-z0-9_-]+|\*|#))*$`)
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringOfN(rapid.RuneFrom([]rune("ab0-_.*#A ä/")), 0, 12, -1).Draw(t, "topic")
		if err := checkTopic(s, false); (err == nil) != topic.MatchString(s) {
			t.Fatalf("topic %q: %v", s, err)
		}
		if err := checkTopic(s, true); (err == nil) != pattern.MatchString(s) {
			t.Fatalf("pattern %q: %v", s, err)
		}
	})
	require.NoError(t, checkTopic(strings.Repeat("a", 255), false))
	require.ErrorIs(t, checkTopic(strings.Repeat("a", 256), false), ErrInvalid)
}

// A dead letter's key must fit where the topic just did.
func TestDeadLetterKeyOfTheLongestTopic(t *testing.T) {
	letter := DeadLetter(&Message{RoutingKey: strings.Repeat("a", 255)}, Discard{})
	require.Len(t, letter.RoutingKey, 255)
	require.Len(t, letter.Headers[HeaderOriginalTopic], 255)
}
