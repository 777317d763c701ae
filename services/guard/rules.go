package guard

import (
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

func checkRules(rules map[string][]string) error {
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		if err := mesh.ValidateName("name", name); err != nil {
			return fmt.Errorf("mesh.access.%s: name a service or an app-id: %w", name, err)
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

// allow asks the rules of all that a request is for.
func (g *Guard) allow(r *http.Request, pattern, caller string) error {
	_, route, found := strings.Cut(pattern, "/")
	if len(g.cfg.Rules) == 0 || !found {
		return nil
	}
	target, names := g.called(r, "/"+route)
	if caller != "" && caller == target {
		return nil
	}
	for _, name := range names {
		apps, ruled := g.cfg.Rules[name]
		if !ruled || slices.Contains(apps, Everyone) || caller != "" && slices.Contains(apps, caller) {
			continue
		}
		g.refused(r, "forbidden")
		who := "a caller without an app-id"
		if caller != "" {
			who = fmt.Sprintf("the caller %q", caller)
		}
		return problem.New(problem.Forbidden, "%s may not call %q: the rule mesh.access.%s does not name it", who, name, name)
	}
	return nil
}

// called is what a request is for: the app-id that is to do it, and all names by which there may be a rule. On the invoke
// endpoint those are what it asks for, by app-id, by service and by the path; elsewhere the service of the path, on this
// node's app-id.
func (g *Guard) called(r *http.Request, route string) (target string, names []string) {
	if !strings.HasPrefix(route, mesh.ProxyPattern) {
		service, _, _ := strings.Cut(route[1:], "/")
		return g.cfg.AppID, []string{service, g.cfg.AppID}
	}
	named, method, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), mesh.ProxyPattern), "/method/")
	target = g.cfg.Resolve(named)
	names = []string{named, target}
	for _, p := range readings(method) {
		first, _, _ := strings.Cut(strings.TrimLeft(p, "/"), "/")
		names = append(names, first)
	}
	return target, names
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
