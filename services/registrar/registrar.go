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
	// Logger hears of a bus that is away. Default: none.
	Logger *slog.Logger
}

// A Registrar registers services when the node starts. It is a service of the host.
type Registrar struct {
	host.Base
	cfg    Config
	events []*events.PermissionsServiceRegisteredEvent

	end        context.CancelFunc
	background sync.WaitGroup
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
	return &Registrar{cfg: cfg}, nil
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

// Start begins to register the services, and goes on until the bus has taken it.
func (r *Registrar) Start(ctx context.Context) error {
	var life context.Context
	life, r.end = context.WithCancel(context.WithoutCancel(ctx))
	r.background.Go(func() {
		for _, e := range r.events {
			r.register(life, e)
		}
	})
	return nil
}

// Stop ends that.
func (r *Registrar) Stop(context.Context) error {
	r.end()
	r.background.Wait()
	return nil
}

func (r *Registrar) register(ctx context.Context, e *events.PermissionsServiceRegisteredEvent) {
	for {
		_, err := r.cfg.Bus.PublishWith(ctx, events.TopicPermissionsServiceRegistered, e, bus.PublishOptions{
			PartitionKey: e.ServiceName, Mandatory: true, // the queue may not be there yet: it is tried until it is
		})
		if err == nil {
			return
		}
		r.cfg.Logger.DebugContext(ctx, "the endpoints of a service could not be registered; it is tried again", slog.String("service", e.ServiceName), slog.Any("error", err))
		select {
		case <-time.After(r.cfg.Retry):
		case <-ctx.Done():
			return
		}
	}
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
