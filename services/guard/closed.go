package guard

import (
	"context"
	"slices"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/problem"
)

const (
	publishing  = "messaging/publish"
	subscribing = "messaging/subscribe"
)

// meshServices are those that decide who is called. Whoever may use them is given the mesh's token, by an endpoint of his own.
func meshServices() []string { return []string{"mesh", "orchestrator"} }

// closedParts are what the token of an app does not do for unless a rule of this very name says so, each for its reason.
func closedParts() []string {
	return append(meshServices(),
		"accounts",               // gives roles, and reads who there is
		"permissions",            // says what sessions are told that they may call
		"sagas",                  // undoes and ends what others have begun
		"migration",              // decides where the node's stores, events and calls go at its next start
		"messaging/dead-letters", // those of all subscriptions: they can be read, and what they said is said again
		"messaging/outbox",       // events of all callers
		"events/erase",           // of any subject, for good
		"events/rewrap",          // of all keys
		"events/projections",     // of all programs
		"auth/accounts",          // steps of a registration and of a deletion
		"game-session/reserve",   // steps of a join: seats of anybody, without asking him
		"game-session/invite",
		"game-session/seat",
		"game-session/release",
		"game-session/players", // of an account that is deleted
	)
}

// closed reports whether a name is among those that are closed, for who is no node or passes on what an app asked for.
func (c caller) closed(names []string, name string) bool {
	return (!c.node || c.behalf != "") && slices.Contains(names, name)
}

// parts are the service of a path, and what else of the path there is to be asked about.
func (g *Guard) parts(path string) []string {
	service, _, _ := strings.Cut(path, "/")
	all := []string{service}
	for _, name := range prefixes(path, "/")[1:] {
		if _, ruled := g.cfg.Rules[name]; ruled || slices.Contains(closedParts(), name) {
			all = append(all, name)
		}
	}
	return all
}

// prefixes are the parts of a path, or of a topic behind a path, that there may be a rule about: "a/b/c" has "a", "a/b" and itself.
func prefixes(path, separators string) []string {
	var all []string
	for i := 1; i < len(path); i++ {
		if strings.IndexByte(separators, path[i]) >= 0 {
			all = append(all, path[:i])
		}
	}
	return append(all, path)
}

// MayPublish lets who a request is from publish on a topic. On one that is a service's own (Config.Owned) takes the credentials of a
// node, or a rule that names the app for messaging/publish/{topic}, or for the first words of it; where there is one, nodes are asked
// too. Otherwise the error is a problem: 403.
func (g *Guard) MayPublish(ctx context.Context, topic string) error {
	if g == nil {
		return nil
	}
	return g.mayUse(ctx, publishing, topic, g.cfg.Owned != nil && g.cfg.Owned(topic))
}

// MaySubscribe lets who a request is from hear what is published on the topics of a pattern. Where one of Config.Secret is among them,
// it is as for MayPublish, by rules for messaging/subscribe/{topic}. Otherwise the error is a problem: 403.
func (g *Guard) MaySubscribe(ctx context.Context, pattern string) error {
	if g == nil {
		return nil
	}
	for _, topic := range g.cfg.Secret {
		if topicMatches(strings.Split(pattern, "."), strings.Split(topic, ".")) {
			if err := g.mayUse(ctx, subscribing, topic, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayUse asks the rules about a topic. One for it, or for words that it begins with, opens it.
func (g *Guard) mayUse(ctx context.Context, what, topic string, closed bool) error {
	by, _ := ctx.Value(callerKey{}).(caller)
	if by.behalf != "" {
		by = caller{app: by.behalf}
	}
	ruled := false
	for _, words := range prefixes(topic, ".") {
		apps, found := g.cfg.Rules[what+"/"+words]
		ruled = ruled || found
		if found && by.named(apps) {
			return nil
		}
	}
	if !ruled && (!closed || by.node) || by.node && by.app != "" && by.app == g.cfg.AppID {
		return nil
	}
	g.refused(ctx, "forbidden")
	if !ruled {
		return problem.New(problem.Forbidden, "%s may not use %s for %q with the token of an app: the topic is a service's own; there is no rule "+
			"mesh.access.%s/%s that names it", by, what, topic, what, topic)
	}
	return problem.New(problem.Forbidden, "%s may not use %s for %q: the rule mesh.access.%s/%s does not name it", by, what, topic, what, topic)
}

// named reports whether apps are everyone, or have the caller among them.
func (c caller) named(apps []string) bool {
	return slices.Contains(apps, Everyone) || c.app != "" && slices.Contains(apps, c.app)
}

// topicMatches reports whether a topic is among those of a pattern, in which "*" is one word and "#" any number.
func topicMatches(pattern, topic []string) bool {
	switch {
	case len(pattern) == 0:
		return len(topic) == 0
	case pattern[0] == "#":
		return topicMatches(pattern[1:], topic) || len(topic) > 0 && topicMatches(pattern, topic[1:])
	default:
		return len(topic) > 0 && (pattern[0] == "*" || pattern[0] == topic[0]) && topicMatches(pattern[1:], topic[1:])
	}
}

// checkRuleName accepts a service or an app-id, and with slashes a part of a service's paths.
func checkRuleName(name string) error {
	for part := range strings.SplitSeq(name, "/") {
		if err := mesh.ValidateName("name", part); err != nil {
			return err
		}
	}
	return nil
}
