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

// maxLevels is how many calls within one another a path may ask for, which is how many nodes pass a request on.
const maxLevels = 4

// allow asks the rules of all that a request is for.
func (g *Guard) allow(r *http.Request, pattern, caller string) error {
	_, route, found := strings.Cut(pattern, "/")
	if len(g.cfg.Rules) == 0 || !found {
		return nil
	}
	all, tooDeep := g.called(r, "/"+route)
	if tooDeep {
		g.refused(r, "forbidden")
		return problem.New(problem.Forbidden, "the path is a call within calls, more than %d of them; call the last one", maxLevels)
	}
	for _, c := range all {
		if caller != "" && caller == c.target {
			continue
		}
		for _, name := range c.names {
			if !g.mayCall(caller, name) {
				g.refused(r, "forbidden")
				return problem.New(problem.Forbidden, "%s may not call %q: the rule mesh.access.%s does not name it", described(caller), name, name)
			}
		}
	}
	return nil
}

func (g *Guard) mayCall(caller, name string) bool {
	apps, ruled := g.cfg.Rules[name]
	return !ruled || slices.Contains(apps, Everyone) || caller != "" && slices.Contains(apps, caller)
}

func described(caller string) string {
	if caller == "" {
		return "a caller without an app-id"
	}
	return fmt.Sprintf("the caller %q", caller)
}

// A call is what is asked for: the app-id that is to do it, and all names by which there may be a rule.
type call struct {
	target string
	names  []string
}

// called is what a request is for. On the invoke endpoint that is what it asks for, by app-id, by service and by the path, and
// what the path asks for in turn when it is of an invoke endpoint itself: whoever passes that on does so as itself. Elsewhere
// it is the service of the path, on this node's app-id.
func (g *Guard) called(r *http.Request, route string) (all []call, tooDeep bool) {
	if !strings.HasPrefix(route, mesh.ProxyPattern) {
		service, _, _ := strings.Cut(route[1:], "/")
		return []call{{g.cfg.AppID, []string{service, g.cfg.AppID}}}, false
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
				first, _, _ := strings.Cut(p[1:], "/")
				c.names = append(c.names, first)
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
