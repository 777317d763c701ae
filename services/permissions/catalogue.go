package permissions

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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
	Version  int64                   `json:"version,omitempty"` // counts the changes
}

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

// changeCatalogue changes it by compare-and-set. Change returns false to leave it as it is.
func (s *Service) changeCatalogue(ctx context.Context, change func(services map[string]registration) (bool, error)) error {
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
		write, err := change(c.Services)
		if err != nil || !write {
			return err
		}
		c.Version = following(c.Version, s.cfg.Now())
		_, err = store.TrySaveWith(ctx, catalogueKey, c, etag, state.SaveOptions{Expiry: state.Never})
		return err
	})
}

// register replaces what a service has registered, unless it has registered later than at. It returns how many sessions may call
// something else now.
func (s *Service) register(ctx context.Context, name string, r registration) (sessions int, err error) {
	if err := checkRegistration(name, r); err != nil {
		return 0, err
	}
	if err := s.changeCatalogue(ctx, func(services map[string]registration) (bool, error) {
		before, known := services[name]
		before.At = s.when(before.At)
		switch {
		case known && before.At.After(r.At):
			return false, nil // this one is late
		case known && before.AppID == r.AppID && before.Version == r.Version && sameEndpoints(before.Endpoints, r.Endpoints):
			return false, nil
		case !known && len(services) >= maxServices:
			return false, problem.Invalid("serviceName", "would be one service more than the %d that may register", maxServices)
		}
		services[name] = r
		return true, nil
	}); err != nil {
		return 0, err
	}
	return s.recomputeAll(ctx) // also when nothing was changed: who changed it may have died before
}

func sameEndpoints(a, b []events.PermissionsEndpoint) bool {
	first, err := json.Marshal(a)
	if err != nil {
		return false
	}
	second, err := json.Marshal(b)
	return err == nil && string(first) == string(second)
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
