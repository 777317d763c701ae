// Package registrar tells the permissions service, by an event, what the endpoints of a node's services require.
//
// It reads that from their OpenAPI documents: an operation's x-permissions is a list of roles, each with the states that the session has
// to be in besides, such as [{role: user, states: {game-session: lobby}}]. An operation without it, or with an empty list, is for no session.
// A service none of whose operations has it is not registered.
package registrar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/host"
)

// Config describes a Registrar.
type Config struct {
	// Bus hears of the services. Required.
	Bus *bus.Bus
	// AppID is that of the node.
	AppID string
	// Retry is the pause after a registration that the bus did not take. Default: 1 s.
	Retry time.Duration
	// Logger hears of services that cannot be registered. Default: none.
	Logger *slog.Logger
}

// A Registrar registers services when the node starts. It is a service of the host.
type Registrar struct {
	host.Base
	cfg    Config
	events []*events.PermissionsServiceRegisteredEvent

	end        context.CancelFunc
	background sync.WaitGroup

	mu     sync.Mutex
	failed map[string]failure // by service: those that are not registered
}

// New makes a registrar that knows no service.
func New(cfg Config) (*Registrar, error) {
	if cfg.Bus == nil {
		return nil, errors.New("registrar: it needs a bus")
	}
	cfg.Retry = cmp.Or(cfg.Retry, time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Registrar{cfg: cfg, failed: map[string]failure{}}, nil
}

// Add reads the document of a service, before Start.
func (r *Registrar) Add(s host.Service) error {
	e, err := Read(s.Name(), s.OpenAPI())
	if err != nil || e == nil {
		return err
	}
	e.AppID = r.cfg.AppID
	r.events = append(r.events, e)
	return nil
}

// Name is "registrar".
func (r *Registrar) Name() string { return "registrar" }

// Start begins to register the services, and goes on until the bus has taken all of it.
func (r *Registrar) Start(ctx context.Context) error {
	var life context.Context
	life, r.end = context.WithCancel(context.WithoutCancel(ctx))
	r.background.Go(func() {
		for open := r.events; ; {
			open = slices.DeleteFunc(slices.Clone(open), func(e *events.PermissionsServiceRegisteredEvent) bool { return r.register(life, e) })
			if len(open) == 0 {
				return
			}
			select {
			case <-time.After(r.cfg.Retry):
			case <-life.Done():
				return
			}
		}
	})
	return nil
}

// Ready says, as degraded, which services could not be registered: nobody may call them through a gateway. That no queue waits for a registration is no
// lack: there may be no permissions service.
func (r *Registrar) Ready(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(r.failed)) {
		if err := r.failed[name].err; !errors.Is(err, bus.ErrUnroutable) {
			errs = append(errs, fmt.Errorf("the endpoints of %s are not registered: %w", name, err))
		}
	}
	return host.Degraded(errors.Join(errs...))
}

// Stop ends that.
func (r *Registrar) Stop(context.Context) error {
	r.end()
	r.background.Wait()
	return nil
}

// A failure is why a service is not registered.
type failure struct {
	err  error
	said time.Time // to the log
}

// again is how long the log is left alone about a service that cannot be registered.
const again = time.Minute

// register tries once to register a service, and reports whether that is over.
func (r *Registrar) register(ctx context.Context, e *events.PermissionsServiceRegisteredEvent) (over bool) {
	_, err := r.cfg.Bus.PublishWith(ctx, events.TopicPermissionsServiceRegistered, e, bus.PublishOptions{
		PartitionKey: e.ServiceName, Mandatory: true, // the queue may not be there yet: it is tried until it is
	})
	if ctx.Err() != nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.failed, e.ServiceName)
		return true
	}
	said := r.failed[e.ServiceName].said
	service, why := slog.String("service", e.ServiceName), slog.Any("error", err)
	switch {
	case errors.Is(err, bus.ErrInvalid):
		r.cfg.Logger.ErrorContext(ctx, "the endpoints of a service cannot be registered, and nobody may call them through a gateway", service, why)
		over = true
	case errors.Is(err, bus.ErrUnroutable):
		r.cfg.Logger.DebugContext(ctx, "nobody waits for the endpoints of a service yet; it is tried again", service, why)
	case time.Since(said) >= again:
		r.cfg.Logger.WarnContext(ctx, "the endpoints of a service could not be registered; it is tried again", service, why)
		said = time.Now()
	}
	r.failed[e.ServiceName] = failure{err, said}
	return over
}

// Read is the registration that an OpenAPI document asks for; nil: none.
func Read(service string, document []byte) (*events.PermissionsServiceRegisteredEvent, error) {
	var d struct {
		Info  struct{ Version string }
		Paths map[string]map[string]yaml.Node
	}
	if err := yaml.Unmarshal(document, &d); err != nil {
		return nil, fmt.Errorf("registrar: the document of %s: %w", service, err)
	}
	e := &events.PermissionsServiceRegisteredEvent{ServiceName: service, Version: d.Info.Version, Endpoints: []events.PermissionsEndpoint{}}
	asked := false
	for path, operations := range d.Paths {
		for method, node := range operations {
			if !slices.Contains([]string{"get", "put", "post", "delete", "patch", "head", "options"}, method) {
				continue // parameters and the like
			}
			var operation struct {
				Permissions *[]struct {
					Role   string
					States map[string]string
				} `yaml:"x-permissions"`
			}
			if err := node.Decode(&operation); err != nil {
				return nil, fmt.Errorf("registrar: %s %s of %s: %w", method, path, service, err)
			}
			endpoint := events.PermissionsEndpoint{Method: strings.ToUpper(method), Path: path, Permissions: []events.PermissionsRequirement{}}
			if operation.Permissions != nil {
				asked = true
				for _, p := range *operation.Permissions {
					endpoint.Permissions = append(endpoint.Permissions, events.PermissionsRequirement{Role: p.Role, States: p.States})
				}
			}
			e.Endpoints = append(e.Endpoints, endpoint)
		}
	}
	if !asked {
		return nil, nil //nolint:nilnil // said so
	}
	slices.SortFunc(e.Endpoints, func(a, b events.PermissionsEndpoint) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method))
	})
	return e, nil
}
