package facade

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// codedPrefix begins the topics of the bus that stand for names of Dapr which are no topics there, such as Orders or orders/new.
const codedPrefix = "dapr-topic.x"

// topicOf is the topic of the bus for a topic of Dapr: the same where it is one, otherwise its bytes in hexadecimal. With patterns, words may be
// "*" and "#".
func topicOf(b *bus.Bus, topic string, patterns bool) (string, error) {
	if strings.HasPrefix(topic, codedPrefix) {
		return "", fmt.Errorf("topic %q begins as those that stand for other names do; choose another", topic)
	}
	if b.CheckTopic(topic, patterns) == nil {
		return topic, nil
	}
	coded := codedPrefix + hex.EncodeToString([]byte(topic))
	if err := b.CheckTopic(coded, false); err != nil {
		return "", fmt.Errorf("topic %q is too long: it has characters that a topic of the bus has not, and may have 121 bytes then", topic)
	}
	return coded, nil
}

// pubsub finds the broker and the topic that a request names, or, with patterns, a subscription.
func (s *Service) pubsub(name, topic string, patterns bool) (PubSub, string, error) {
	switch {
	case len(s.cfg.PubSubs) == 0:
		return PubSub{}, "", refuse(http.StatusBadRequest, "ERR_PUBSUB_NOT_CONFIGURED", "pubsub %s is not configured", name)
	case topic == "":
		return PubSub{}, "", refuse(http.StatusNotFound, "ERR_TOPIC_NAME_EMPTY", "topic is empty in pubsub %s", name)
	}
	p, known := s.cfg.PubSubs[name]
	if !known {
		return PubSub{}, "", refuse(http.StatusNotFound, "ERR_PUBSUB_NOT_FOUND", "pubsub %s is not found", name)
	}
	may := p.MayPublish
	if patterns {
		may = p.MaySubscribe
	}
	if err := s.allow(p, may, topic); err != nil {
		return p, "", err
	}
	on, err := topicOf(p.Bus, topic, patterns)
	if err != nil {
		return p, "", refuse(http.StatusBadRequest, "ERR_TOPIC_NAME_INVALID", "%s", err)
	}
	return p, on, nil
}
