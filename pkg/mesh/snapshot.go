package mesh

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// A snapshot is what a directory knows at an instant. It never changes: a new one is made of it and put in its place,
// so readers need no lock. Making one copies the map of app-ids and rebuilds only the groups that changed.
type snapshot struct {
	version   uint64    // how many were in place before, and it
	refreshed time.Time // when the source was last read; zero: never
	mappings  Mappings
	apps      map[string]*group
	offered   map[string]int // how many groups have a service
	left      departures
}

// A group is the endpoints of one app-id, by instance id.
type group struct {
	all       []*Endpoint
	usable    []*Endpoint            // of all, those a request may be sent to
	byService map[string][]*Endpoint // of usable, those that run a service or do not say; only where not all of them do
	services  []string               // what any of all runs
}

func newGroup(all []*Endpoint) *group {
	slices.SortFunc(all, func(a, b *Endpoint) int { return strings.Compare(a.InstanceID, b.InstanceID) })
	g := &group{all: all, usable: withStatus(all, StatusHealthy)}
	if len(g.usable) == 0 {
		g.usable = withStatus(all, StatusDegraded)
	}
	names := map[string]struct{}{}
	for _, e := range all {
		for _, s := range e.Services {
			names[s] = struct{}{}
		}
	}
	g.services = slices.Sorted(maps.Keys(names))
	for _, service := range g.services {
		if some := running(g.usable, service); len(some) > 0 && len(some) < len(g.usable) {
			if g.byService == nil {
				g.byService = map[string][]*Endpoint{}
			}
			g.byService[service] = some
		}
	}
	return g
}

func withStatus(all []*Endpoint, s Status) []*Endpoint {
	var some []*Endpoint
	for _, e := range all {
		if e.Status == s {
			some = append(some, e)
		}
	}
	return some
}

func running(all []*Endpoint, service string) []*Endpoint {
	var some []*Endpoint
	for _, e := range all {
		if runs(e, service) {
			some = append(some, e)
		}
	}
	return some
}

// runs reports whether an instance runs a service, as far as it says.
func runs(e *Endpoint, service string) bool {
	return len(e.Services) == 0 || slices.Contains(e.Services, service)
}

func (g *group) find(instanceID string) *Endpoint {
	if g == nil {
		return nil
	}
	i, found := slices.BinarySearchFunc(g.all, instanceID, func(e *Endpoint, id string) int {
		return strings.Compare(e.InstanceID, id)
	})
	if !found {
		return nil
	}
	return g.all[i]
}

func snapshotOf(endpoints []Endpoint, m Mappings) *snapshot {
	byApp := map[string][]*Endpoint{}
	for i := range endpoints {
		e := &endpoints[i]
		byApp[e.AppID] = append(byApp[e.AppID], e)
	}
	s := &snapshot{refreshed: time.Now(), mappings: m, apps: make(map[string]*group, len(byApp)), offered: map[string]int{}}
	for app, all := range byApp {
		s.apps[app] = newGroup(all)
		for _, service := range s.apps[app].services {
			s.offered[service]++
		}
	}
	return s
}

// with returns a snapshot in which the app-id has these endpoints.
func (s *snapshot) with(appID string, all []*Endpoint) *snapshot {
	next := *s
	next.apps, next.offered = maps.Clone(s.apps), maps.Clone(s.offered)
	if old := s.apps[appID]; old != nil {
		for _, service := range old.services {
			if next.offered[service]--; next.offered[service] == 0 {
				delete(next.offered, service)
			}
		}
	}
	if len(all) == 0 {
		delete(next.apps, appID)
		return &next
	}
	g := newGroup(all)
	next.apps[appID] = g
	for _, service := range g.services {
		next.offered[service]++
	}
	return &next
}

// apply returns the snapshot after a change: s itself if it already knows better. incomplete: the change does not say
// enough, the source has to be asked.
func (s *snapshot) apply(c Change) (next *snapshot, incomplete bool) {
	switch c.Kind {
	case ChangeMappings:
		if c.Mappings.Version > maxAnnouncedVersion || c.Mappings.Validate() != nil { // as the registry does
			return s, false
		}
		return s.withMappings(c.Mappings), false
	case ChangeRegistered, ChangeDegraded:
		return s.put(c)
	case ChangeDeregistered:
		return s.drop(c.Endpoint), false
	default:
		return s, false
	}
}

func (s *snapshot) withMappings(m Mappings) *snapshot {
	if m.Version <= s.mappings.Version {
		return s
	}
	next := *s
	next.mappings = m
	return &next
}

func (s *snapshot) put(c Change) (next *snapshot, incomplete bool) {
	e := c.Endpoint
	g := s.apps[e.AppID]
	known := g.find(e.InstanceID)
	if known != nil && !e.LastSeen.IsZero() && e.LastSeen.Before(known.LastSeen) || s.left.before(&e) {
		return s, false
	}
	if e.Host == "" && known != nil { // only the ids and the status came
		status := e.Status
		e = *known
		e.Status = status
	}
	switch {
	case c.Kind == ChangeDegraded && (e.Status == "" || e.Status == StatusHealthy):
		e.Status = StatusDegraded
	case e.Status == "":
		e.Status = StatusHealthy
	}
	if e.Validate() != nil {
		return s, true
	}
	return s.with(e.AppID, append(g.others(e.InstanceID), &e)), false
}

func (s *snapshot) drop(e Endpoint) *snapshot {
	g := s.apps[e.AppID]
	known := g.find(e.InstanceID)
	if known != nil && !e.LastSeen.IsZero() && e.LastSeen.Before(known.LastSeen) {
		return s // it came back since
	}
	left, added := s.left.with(&e)
	if known == nil && !added {
		return s
	}
	next := *s
	if known != nil {
		next = *s.with(e.AppID, g.others(e.InstanceID))
	}
	next.left = left
	return &next
}

func (g *group) others(instanceID string) []*Endpoint {
	if g == nil {
		return nil
	}
	others := make([]*Endpoint, 0, len(g.all)+1)
	for _, e := range g.all {
		if e.InstanceID != instanceID {
			others = append(others, e)
		}
	}
	return others
}
