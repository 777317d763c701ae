package facade

import (
	"net/http"
	"slices"
	"strings"
)

// TopicScopes reads who may publish and subscribe to what from the metadata of a broker's component: allowedTopics, protectedTopics, publishingScopes and
// subscriptionScopes, as Dapr reads them. nil: every topic.
func TopicScopes(metadata map[string]string, appID string) (publishes, subscribes []string) {
	of := func(scopes string) []string {
		allowed := split(metadata["allowedtopics"], ",")
		protected := split(metadata["protectedtopics"], ",")
		for _, one := range split(metadata[scopes], ";") {
			if app, topics, is := strings.Cut(one, "="); is && strings.TrimSpace(app) == appID {
				named := split(topics, ",")
				if len(allowed) > 0 {
					named = slices.DeleteFunc(named, func(topic string) bool { return !slices.Contains(allowed, topic) })
				}
				return append([]string{}, named...)
			}
		}
		if len(allowed) == 0 {
			return nil
		}
		return slices.DeleteFunc(allowed, func(topic string) bool { return slices.Contains(protected, topic) })
	}
	return of("publishingscopes"), of("subscriptionscopes")
}

// split is a list without its empty parts.
func split(list, by string) []string {
	var parts []string
	for part := range strings.SplitSeq(list, by) {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// allow refuses a topic that is not in the list; nil allows every one.
func (s *Service) allow(topics []string, topic string) error {
	if topics == nil || slices.Contains(topics, topic) {
		return nil
	}
	return refuse(http.StatusForbidden, "ERR_PUBSUB_FORBIDDEN", "topic %s is not allowed for app id %s", topic, s.cfg.AppID)
}
