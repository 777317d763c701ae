package host

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// A Service is one part of the program with a lifecycle and, mostly, with paths. Embed Base for what it does not need.
type Service interface {
	// Name is unique among the services of a host: a lower-case word.
	Name() string

	// DependsOn names the services that have to be started before this one, and stopped after it.
	DependsOn() []string

	// OpenAPI is the service's document, nil for none. References to the problem document, as
	// "../problem/openapi.yaml#/...", are resolved where documents are merged.
	OpenAPI() []byte

	// Mount registers the service's paths. It is called once, before Start.
	Mount(mux *http.ServeMux) error

	// Start returns when the service works, or when it has begun to wait for what is away: that is for Ready to tell,
	// not a reason to fail. The context ends when the host is told to stop meanwhile; it does not bound the service's
	// life. A service whose Start failed is not stopped.
	Start(ctx context.Context) error

	// Stop ends what Start began, by the context's deadline.
	Stop(ctx context.Context) error

	// Ready returns nil when the service can do its work now, otherwise a sentence for operators, marked with Degraded
	// when callers should come nevertheless. It answers by the context's deadline.
	Ready(ctx context.Context) error
}

// A Drainer is a Service that has something to end before the listener closes: an announcement that would still draw
// callers, or requests that never end by themselves.
type Drainer interface {
	// Drain is called once, when the host begins to stop. It returns by the context's deadline.
	Drain(ctx context.Context)
}

// An Announcer is a Service whose Start has others call this node. It is started after all services that are none, when
// those take requests: whoever hears of the node a millisecond later is answered.
type Announcer interface {
	// Announces does nothing: it tells that Start does.
	Announces()
}

// Measured is a Service that shows figures beside its line in /readyz.
type Measured interface {
	// Figures are few, and known without waiting.
	Figures() map[string]float64
}

// Busy is a Service that has requests from outside under way which no request of the listener stands for, as those that come over a WebSocket.
type Busy interface {
	// InFlight is how many, known without waiting.
	InFlight() int
}

// Base is the parts of Service that many do not need: no dependencies, no document, no paths, nothing to start or stop,
// always ready.
type Base struct{}

// DependsOn is none.
func (Base) DependsOn() []string { return nil }

// OpenAPI is none.
func (Base) OpenAPI() []byte { return nil }

// Mount does nothing.
func (Base) Mount(*http.ServeMux) error { return nil }

// Start does nothing.
func (Base) Start(context.Context) error { return nil }

// Stop does nothing.
func (Base) Stop(context.Context) error { return nil }

// Ready is always nil.
func (Base) Ready(context.Context) error { return nil }

// inOrder sorts services so that each comes after those it depends on, those that announce the node after all others, and
// otherwise as they were added.
func inOrder(services []Service) ([]Service, error) {
	byName := make(map[string]Service, len(services))
	for _, s := range services {
		if s.Name() == "" {
			return nil, fmt.Errorf("host: a service of type %T has no name", s)
		}
		if _, ok := byName[s.Name()]; ok {
			return nil, fmt.Errorf("host: service %q was added twice", s.Name())
		}
		byName[s.Name()] = s
	}
	var (
		ordered = make([]Service, 0, len(services))
		done    = make(map[string]bool, len(services))
		path    []string
		visit   func(s Service) error
	)
	visit = func(s Service) error {
		name := s.Name()
		if done[name] {
			return nil
		}
		if i := slices.Index(path, name); i >= 0 {
			return fmt.Errorf("host: services depend on each other in a circle: %s",
				strings.Join(append(path[i:], name), " -> "))
		}
		path = append(path, name)
		for _, need := range s.DependsOn() {
			dependency, ok := byName[need]
			if !ok {
				return fmt.Errorf("host: service %q depends on %q, which this host does not run", name, need)
			}
			if announces(dependency) && !announces(s) {
				return fmt.Errorf("host: service %q depends on %q, which announces the node and therefore starts last", name, need)
			}
			if err := visit(dependency); err != nil {
				return err
			}
		}
		path = path[:len(path)-1]
		done[name] = true
		ordered = append(ordered, s)
		return nil
	}
	for _, s := range services {
		if err := visit(s); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(ordered, func(a, b Service) int {
		switch {
		case announces(a) == announces(b):
			return 0
		case announces(a):
			return 1
		default:
			return -1
		}
	})
	return ordered, nil
}

func announces(s Service) bool {
	_, ok := s.(Announcer)
	return ok
}
