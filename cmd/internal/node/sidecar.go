package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/daprbus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/daprmesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/daprstate"
	"github.com/bannou-mesh/bannou/services/host"
)

// A sidecar is what of the node is on a sidecar of Dapr: a second bus, for the services that are there, and where the sidecar brings events and calls. As a
// service it starts before all others and stops after them. Close it after the host has stopped.
type sidecar struct {
	host.Base
	driver   *daprbus.Driver // also where no service publishes with it: it asks the sidecar for the app's token
	bus      *bus.Bus        // nil: no service is on it
	listener net.Listener
	server   *http.Server
	served   chan error
	stop     context.CancelFunc
}

// newSidecar makes what the settings put on a sidecar, and nil where that is neither messaging nor calls.
func newSidecar(cfg *config.Config, n *Node, log *slog.Logger) (s *sidecar, err error) {
	if !cfg.MessagingOnDapr() && cfg.Dapr.Sidecar.AppListen == "" {
		return nil, nil
	}
	s = &sidecar{served: make(chan error, 1)}
	settings := cfg.Dapr.Sidecar
	if s.driver, err = daprbus.New(daprbus.Config{
		Endpoint: settings.Endpoint, Token: settings.Token, AppToken: settings.AppToken, PubSub: settings.PubSub,
		DeadLetterExchange: cfg.Messaging.DeadLetterExchange, Logger: log,
	}); err != nil {
		return nil, err
	}
	if cfg.MessagingOnDapr() {
		if s.bus, err = bus.New(s.driver, busConfig(cfg, n, log)); err != nil {
			return nil, errors.Join(err, s.close(context.Background()))
		}
	}
	if settings.AppListen == "" {
		return s, nil
	}
	if s.listener, err = new(net.ListenConfig).Listen(context.Background(), "tcp", settings.AppListen); err != nil {
		return nil, errors.Join(fmt.Errorf("--dapr-sidecar-app-listen: %w", err), s.close(context.Background()))
	}
	handler := s.driver.Handler(n.host.Handler()) // the latter asks who calls, as everywhere
	s.server = &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	return s, nil
}

// Name is "sidecar".
func (*sidecar) Name() string { return "sidecar" }

// Ready reports whether the sidecar has subscribed to what the services handle.
func (s *sidecar) Ready(ctx context.Context) error {
	if s.bus == nil {
		return nil
	}
	if err := s.bus.Ready(ctx); err != nil {
		return fmt.Errorf("the sidecar of Dapr: %w", err)
	}
	return nil
}

// Start answers the sidecar once all handlers are known: it asks for them once.
func (s *sidecar) Start(ctx context.Context) error {
	if s.server == nil {
		return nil
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	go func() {
		if s.bus != nil {
			select {
			case <-s.bus.Running():
			case <-life.Done():
				s.served <- http.ErrServerClosed
				return
			}
		}
		s.served <- s.server.Serve(s.listener)
	}()
	return nil
}

// Stop lets handlers finish and answers the sidecar about what they had in work, before it stops listening.
func (s *sidecar) Stop(ctx context.Context) error {
	var errs []error
	if s.bus != nil {
		errs = append(errs, s.bus.Close(ctx))
	}
	if s.server != nil {
		s.stop()
		if err := s.server.Shutdown(ctx); err != nil {
			errs = append(errs, err, s.server.Close())
		}
		if err := <-s.served; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, fmt.Errorf("serve the sidecar: %w", err))
		}
	}
	return errors.Join(errs...)
}

// run runs the bus until the context ends, or it is closed.
func (s *sidecar) run(ctx context.Context) error {
	if s == nil || s.bus == nil {
		return nil
	}
	return s.bus.Run(ctx)
}

// close releases what newSidecar opened.
func (s *sidecar) close(ctx context.Context) error {
	var errs []error
	if s.listener != nil {
		if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.bus != nil {
		errs = append(errs, s.bus.Close(ctx))
	}
	errs = append(errs, s.driver.Close(ctx))
	return errors.Join(errs...)
}

// busOf is the bus of a service: the node's own, or that over the sidecar.
func (p parts) busOf(service string) *bus.Bus {
	if p.cfg.MessagingOn(service) == "dapr" {
		return p.sidecar.bus
	}
	return p.bus
}

// newDaprState makes the driver of stores that the sidecar keeps.
func newDaprState(s config.Sidecar) (state.Driver, error) {
	driver, err := daprstate.New(daprstate.Config{Endpoint: s.Endpoint, Token: s.Token, Place: s.Component, Rounding: s.Rounding})
	if err != nil {
		return nil, err // and not an interface that holds a nil pointer
	}
	return driver, nil
}

// newCarrier makes what calls go through that are on Dapr; nil: none are.
func newCarrier(cfg *config.Config) (mesh.Carrier, error) {
	if !cfg.MeshOnDapr() {
		return nil, nil
	}
	s := cfg.Dapr.Sidecar
	carrier, err := daprmesh.New(daprmesh.Config{
		Endpoint: s.Endpoint, Token: s.Token, Targets: func(target string) bool { return cfg.MeshOn(target) == "dapr" },
	})
	if err != nil {
		return nil, err
	}
	return carrier, nil
}
