package permissions

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/problem"
)

// ServiceStore has one value, the catalogue. It lasts.
const ServiceStore = "permissions-services"

const (
	catalogueKey = "catalogue"
	maxEndpoints = 1000 // of one service
	maxServices  = 1000
	maxNameBytes = 128
	maxPathBytes = 1024
)

// A registration is what a service has registered.
type registration struct {
	AppID     string                       `json:"appId,omitempty"`
	Version   string                       `json:"version,omitempty"`
	At        time.Time                    `json:"at"`
	Endpoints []events.PermissionsEndpoint `json:"endpoints"`
}

// A catalogue is what all have, by service.
type catalogue struct {
	Services map[string]registration `json:"services"`
	Removed  map[string]time.Time    `json:"removed,omitempty"` // services that were removed lately, and when
	Version  int64                   `json:"version,omitempty"` // counts the changes
}

// removedFor is how long it is remembered that a service was removed, so that an older registration does not bring it back.
const removedFor = 24 * time.Hour

// capabilities are the endpoints that may be called, by service and in order.
type capabilities map[string][]string

// allows is what a session may call.
func (c catalogue) allows(e *entry) capabilities {
	allowed := capabilities{}
	if e.Ended {
		return allowed
	}
	for name, r := range c.Services {
		var endpoints []string
		for _, endpoint := range r.Endpoints {
			if slices.ContainsFunc(endpoint.Permissions, e.meets) {
				endpoints = append(endpoints, endpoint.Method+" "+endpoint.Path)
			}
		}
		if len(endpoints) > 0 {
			slices.Sort(endpoints)
			allowed[name] = slices.Compact(endpoints)
		}
	}
	return allowed
}

// digest tells capabilities apart.
func (c capabilities) digest() string {
	hash := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(c)) {
		_, _ = fmt.Fprintf(hash, "%q:%q\n", name, c[name])
	}
	return hex.EncodeToString(hash.Sum(nil)[:12])
}

// An allowance is capabilities with their digest.
type allowance struct {
	capabilities
	digest string
}

func computed(c capabilities) allowance { return allowance{c, c.digest()} }

// catalogue returns the catalogue, and its ETag.
func (s *Service) catalogue(ctx context.Context) (catalogue, string, error) {
	store, err := state.Open[catalogue](ctx, s.cfg.Factory, ServiceStore)
	if err != nil {
		return catalogue{}, "", err
	}
	kept, err := store.GetWithETag(ctx, catalogueKey)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return catalogue{}, "", err
	}
	c := kept.Value
	if c.Version == 0 { // a node of before has written it, which did not count: it begins where its latest registration says
		for _, r := range c.Services {
			c.Version = max(c.Version, r.At.UnixMicro())
		}
	}
	return c, kept.ETag, nil
}

// An effect is what a change does to the catalogue.
type effect int

const (
	none     effect = iota // it is not written
	stamped                // it allows what it did
	replaced               // it allows something else
)

// changeCatalogue changes it by compare-and-set.
func (s *Service) changeCatalogue(ctx context.Context, change func(c *catalogue) (effect, error)) error {
	store, err := state.Open[catalogue](ctx, s.cfg.Factory, ServiceStore)
	if err != nil {
		return err
	}
	return state.RetryOnConflict(ctx, func() error {
		c, etag, err := s.catalogue(ctx)
		if err != nil {
			return err
		}
		if c.Services == nil {
			c.Services = map[string]registration{}
		}
		is, err := change(&c)
		if err != nil || is == none {
			return err
		}
		before := s.cfg.Now().Add(-removedFor)
		maps.DeleteFunc(c.Removed, func(_ string, at time.Time) bool { return at.Before(before) })
		if is == replaced {
			c.Version = following(c.Version, s.cfg.Now())
		}
		_, err = store.TrySaveWith(ctx, catalogueKey, c, etag, state.SaveOptions{Expiry: state.Never})
		return err
	})
}

// register replaces what a service has registered, unless it has registered, or was removed, later than at. It returns how many sessions may
// call something else now.
func (s *Service) register(ctx context.Context, name string, r registration) (sessions int, err error) {
	if err := checkRegistration(name, r); err != nil {
		return 0, err
	}
	if err := s.changeCatalogue(ctx, func(c *catalogue) (effect, error) { return s.enter(ctx, c, name, r) }); err != nil {
		return 0, err
	}
	return s.recomputeAll(ctx) // also when nothing was changed: who changed it may have died before
}

// enter enters a registration.
func (s *Service) enter(ctx context.Context, c *catalogue, name string, r registration) (effect, error) {
	before, known := c.Services[name]
	before.At = s.when(before.At)
	removed := s.when(c.Removed[name])
	switch {
	case known && before.AppID == r.AppID && before.Version == r.Version && sameEndpoints(before.Endpoints, r.Endpoints):
		if !r.At.After(before.At) {
			return none, nil
		}
		before.At = r.At // what another has registered in between is late from now on
		c.Services[name] = before
		return stamped, nil
	case known && before.At.After(r.At), removed.After(r.At):
		s.cfg.Logger.WarnContext(ctx, "a registration is older than what is known of the service, and changes nothing; where it is not late, the clock of its node is behind",
			slog.String("service", name), slog.String("app_id", r.AppID), slog.Time("at", r.At), slog.Time("known", latest(before.At, removed)))
		return none, nil
	case !known && len(c.Services) >= maxServices:
		return none, problem.Invalid("serviceName", "would be one service more than the %d that may register", maxServices)
	}
	c.Services[name] = r
	delete(c.Removed, name)
	return replaced, nil
}

// remove takes out what a service has registered, and remembers when.
func (s *Service) remove(ctx context.Context, name string) (removed bool, err error) {
	err = s.changeCatalogue(ctx, func(c *catalogue) (effect, error) {
		if _, removed = c.Services[name]; !removed {
			return none, nil
		}
		if c.Removed == nil {
			c.Removed = map[string]time.Time{}
		}
		c.Removed[name] = s.cfg.Now().UTC()
		delete(c.Services, name)
		return replaced, nil
	})
	return removed, err
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sameEndpoints compares what they say: one that nobody may call may have no requirements, or an empty list.
func sameEndpoints(a, b []events.PermissionsEndpoint) bool {
	return slices.EqualFunc(a, b, func(a, b events.PermissionsEndpoint) bool {
		return a.Method == b.Method && a.Path == b.Path && slices.EqualFunc(a.Permissions, b.Permissions, func(a, b events.PermissionsRequirement) bool {
			return a.Role == b.Role && maps.Equal(a.States, b.States)
		})
	})
}

func checkRegistration(name string, r registration) error {
	if name == "" {
		return problem.Missing("serviceName")
	}
	if len(name) > maxNameBytes || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
		return problem.Invalid("serviceName", "is no name of a service: one has 1 to %d lower-case letters, digits, dashes and dots", maxNameBytes)
	}
	if r.Endpoints == nil {
		return problem.Missing("endpoints")
	}
	if len(r.Endpoints) > maxEndpoints {
		return problem.Invalid("endpoints", "has %d entries, at most %d are allowed", len(r.Endpoints), maxEndpoints)
	}
	for i, e := range r.Endpoints {
		member := fmt.Sprintf("endpoints[%d]", i)
		switch {
		case e.Method == "" || strings.Trim(e.Method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" || len(e.Method) > 16:
			return problem.Invalid(member+".method", "is no method: write it as POST")
		case !strings.HasPrefix(e.Path, "/") || len(e.Path) > maxPathBytes || strings.ContainsAny(e.Path, " \r\n\t"):
			return problem.Invalid(member+".path", "is no path: write it as /state/get")
		}
		for j, p := range e.Permissions {
			if p.Role == "" || len(p.Role) > maxNameBytes || len(p.States) > 32 {
				return problem.Invalid(fmt.Sprintf("%s.permissions[%d]", member, j), "needs a role, and at most 32 states")
			}
		}
	}
	return nil
}
