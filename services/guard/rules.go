package guard

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/problem"
)

// CheckRules refuses rules about what has no name, and such that name what is no app-id.
func CheckRules(rules map[string][]string) error {
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		if err := checkRuleName(name); err != nil {
			return fmt.Errorf("mesh.access.%s: name a service, an app-id, or a part of a service's paths as messaging/dead-letters: %w", name, err)
		}
		for _, app := range rules[name] {
			if app == Everyone {
				continue
			}
			if err := mesh.ValidateName("appId", app); err != nil {
				return fmt.Errorf("mesh.access.%s names %q: list app-ids, or %q for everyone: %w", name, app, Everyone, err)
			}
		}
	}
	return nil
}

// maxLevels is how many calls within one another a path may ask for, which is how many nodes pass a request on.
const maxLevels = 4

// allow asks the rules of all that a request is for.
func (g *Guard) allow(r *http.Request, pattern string, by caller) error {
	_, route, found := strings.Cut(pattern, "/")
	if !found || len(g.cfg.Rules) == 0 && by.node && by.behalf == "" {
		return nil
	}
	all, tooDeep := g.called(r, "/"+route)
	if tooDeep {
		g.refused(r.Context(), "forbidden")
		return problem.New(problem.Forbidden, "the path is a call within calls, more than %d of them; call the last one", maxLevels)
	}
	for _, c := range all {
		for _, name := range c.names {
			if err := g.mayCall(r.Context(), by, c.target, name, by.closed(meshServices(), name)); err != nil {
				return err
			}
		}
		for _, part := range c.parts {
			if err := g.mayCall(r.Context(), by, c.target, part, by.closed(closedParts(), part)); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayCall asks the rule about one name, of a target that is called. What is closed takes one.
func (g *Guard) mayCall(ctx context.Context, by caller, target, name string, closed bool) error {
	apps, ruled := g.cfg.Rules[name]
	switch {
	case by.app != "" && by.app == target && (!closed || ruled && by.node):
		return nil
	case !ruled && !closed, by.named(apps):
		return nil
	}
	g.refused(ctx, "forbidden")
	if !ruled {
		return problem.New(problem.Forbidden, "%s may not call %q with the token of an app: there is no rule mesh.access.%s that names it", by, name, name)
	}
	return problem.New(problem.Forbidden, "%s may not call %q: the rule mesh.access.%s does not name it", by, name, name)
}

// MayAnnounce lets who a request is from tell the mesh, on a topic that it listens to, what its services would be asked for.
// That takes the credentials of a node; the token of an app will not do, also where a node passes on what came with it.
// Otherwise the error is a problem: 403.
func (g *Guard) MayAnnounce(ctx context.Context, topic string) error {
	if g == nil {
		return nil
	}
	by, _ := ctx.Value(callerKey{}).(caller)
	if by.behalf != "" {
		by = caller{app: by.behalf}
	}
	if !by.node {
		g.refused(ctx, "forbidden")
		return problem.New(problem.Forbidden,
			"%s may not publish on %q: the mesh listens to it, and wants the mesh's token or a certificate; this has the token of an app", by, topic)
	}
	for _, name := range meshServices() {
		if err := g.mayCall(ctx, by, g.cfg.AppID, name, by.closed(meshServices(), name)); err != nil {
			return problem.New(problem.Forbidden, "%s may not publish on %q, which is for who may call %q: the rule mesh.access.%s does not name it",
				by, topic, name, name).Because(err)
		}
	}
	return nil
}

func (c caller) String() string {
	if c.app == "" {
		return "a caller without an app-id"
	}
	return fmt.Sprintf("the caller %q", c.app)
}

// A call is what is asked for: the app-id that is to do it, and all names by which there may be a rule: its own, and the parts of its path.
type call struct {
	target       string
	names, parts []string
}

// called is what a request is for. On the invoke endpoint that is what it asks for, by app-id, by service and by the path, and
// what the path asks for in turn when it is of an invoke endpoint itself: whoever passes that on does so as itself. Elsewhere
// it is the service of the path, on this node's app-id.
func (g *Guard) called(r *http.Request, route string) (all []call, tooDeep bool) {
	if !strings.HasPrefix(route, mesh.ProxyPattern) {
		return []call{{target: g.cfg.AppID, names: []string{g.cfg.AppID}, parts: g.parts(route[1:])}}, false
	}
	paths := []string{r.URL.EscapedPath()}
	for range maxLevels {
		var within []string
		for _, p := range paths {
			named, method, _ := strings.Cut(strings.TrimPrefix(p, mesh.ProxyPattern), "/method/")
			c := call{target: g.cfg.Resolve(named)}
			c.names = []string{named, c.target}
			for _, p := range readings(method) {
				p = "/" + strings.TrimLeft(p, "/")
				c.parts = append(c.parts, g.parts(p[1:])...)
				if strings.HasPrefix(p, mesh.ProxyPattern) && !slices.Contains(within, p) {
					within = append(within, p)
				}
			}
			all = append(all, c)
		}
		if paths = within; len(paths) == 0 {
			return all, false
		}
	}
	return all, true
}

// readings are the ways in which a target may read a path: as it is, unescaped, and without dots.
func readings(escaped string) []string {
	all := []string{escaped}
	if unescaped, err := url.PathUnescape(escaped); err == nil && unescaped != escaped {
		all = append(all, unescaped)
	}
	for _, p := range slices.Clone(all) {
		all = append(all, path.Clean("/"+p))
	}
	return all
}
