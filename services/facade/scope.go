package facade

import (
	"net/http"
	"slices"
	"strings"
)

// TopicScopes reads who may publish and subscribe to what from the metadata of a broker's component: allowedTopics, protectedTopics, publishingScopes and
// subscriptionScopes, as Dapr reads them. nil: every topic that is not protected.
func TopicScopes(metadata map[string]string, appID string) (publishes, subscribes, protected []string) {
	allowed := split(metadata["allowedtopics"], ",")
	protected = split(metadata["protectedtopics"], ",")
	of := func(scopes string) []string {
		named, is := scoped(metadata[scopes], appID)
		switch {
		case is && len(allowed) > 0:
			return slices.DeleteFunc(named, func(topic string) bool { return !slices.Contains(allowed, topic) })
		case is:
			return named
		case len(allowed) == 0:
			return nil
		}
		return slices.DeleteFunc(slices.Clone(allowed), func(topic string) bool { return slices.Contains(protected, topic) })
	}
	return of("publishingscopes"), of("subscriptionscopes"), protected
}

// scoped are the topics that scopes such as "one=a,b;two=c" name for an app, and whether they name the app.
func scoped(scopes, appID string) (topics []string, named bool) {
	topics = []string{}
	for _, one := range split(scopes, ";") {
		if app, list, is := strings.Cut(one, "="); is && strings.TrimSpace(app) == appID {
			topics, named = append(topics, split(list, ",")...), true
		}
	}
	return topics, named
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

// allow refuses a topic of the broker that is not in the list. Without one it allows all that are not protected, and where some are, no patterns, which may
// match those too.
func (s *Service) allow(p PubSub, topics []string, topic string) error {
	open := len(p.Protected) == 0 || !slices.Contains(p.Protected, topic) && !strings.ContainsAny(topic, "*#")
	if topics == nil && open || slices.Contains(topics, topic) {
		return nil
	}
	return refuse(http.StatusForbidden, "ERR_PUBSUB_FORBIDDEN", "topic %s is not allowed for app id %s", topic, s.cfg.AppID)
}
