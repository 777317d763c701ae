package connect

import (
	"context"
	_ "embed"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/host"
)

//go:embed openapi.yaml
var document []byte

// Pattern is where players connect. It is for them, so it is open to who shows nothing of the mesh.
const Pattern = "GET /connect"

// A Service is the gateway of a host.
type Service struct {
	host.Base
	cfg     Config
	records records
	held    held
	waiting waiting
	meter   *meter

	upgrader *websocket.Upgrader

	listening atomic.Bool // this node hears of ends and of capabilities
	waits     atomic.Bool // it has tried to, in vain
	listeners []*bus.Subscription
	overflows bus.Consumer // nil until it listens
	calling   atomic.Int64 // calls of clients under way

	end        context.CancelFunc
	loops      sync.WaitGroup
	background sync.WaitGroup // of connections
}

var (
	_ host.Service  = (*Service)(nil)
	_ host.Drainer  = (*Service)(nil)
	_ host.Measured = (*Service)(nil)
	_ host.Busy     = (*Service)(nil)
)

// New makes the service, and has it hear of sessions that end.
func New(cfg Config) (*Service, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, records: records{cfg.Factory}, upgrader: upgrader(new(sync.Pool)), held: held{most: cfg.MaxSessions, sessions: map[string]*session{}}}
	var err error
	if s.meter, err = newMeter(cfg.MeterProvider, s.held.count); err != nil {
		return nil, err
	}
	return s, bus.Handle(cfg.Bus, events.TopicSessionInvalidated, "disconnect-clients", s.forget, bus.SubscriptionOptions{Service: s.Name()})
}

// InFlight is how many calls of clients are under way, which come over connections that no request stands for any more.
func (s *Service) InFlight() int { return int(s.calling.Load()) }

// Name is "connect".
func (s *Service) Name() string { return "connect" }

// OpenAPI is the service's document.
func (s *Service) OpenAPI() []byte { return document }

// Mount registers GET /connect.
func (s *Service) Mount(mux *http.ServeMux) error {
	mux.HandleFunc(Pattern, s.connect)
	return nil
}

// Start begins to listen, and to look after connections.
func (s *Service) Start(ctx context.Context) error {
	var life context.Context
	life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.loops.Go(func() { s.listen(life) })
	s.loops.Go(func() { s.sweep(life) })
	s.loops.Go(func() { s.renew(life) })
	s.loops.Go(func() { s.giveUp(life) })
	return nil
}

// Drain sends all clients to other nodes. It lets calls come to their end first, for half of the time.
func (s *Service) Drain(ctx context.Context) {
	s.held.close()
	all := s.held.all()
	patience := 5 * time.Second
	if deadline, bounded := ctx.Deadline(); bounded {
		patience = time.Until(deadline) / 2
	}
	quiet, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var leaving sync.WaitGroup
	for _, v := range all {
		leaving.Go(func() {
			v.quiet(quiet)
			v.close(goElsewhere())
			select {
			case <-v.gone:
			case <-ctx.Done():
			}
		})
	}
	leaving.Wait()
}

func goElsewhere() ending {
	return away(CloseGoingAway, "the node shuts down: reconnect", events.SessionDisconnectedReasonShutdown)
}

// Stop ends what Drain has left.
func (s *Service) Stop(ctx context.Context) error {
	s.held.close()
	for _, v := range s.held.all() {
		v.close(goElsewhere())
		select {
		case <-v.gone:
		case <-ctx.Done():
		}
	}
	s.end()
	s.loops.Wait()
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.Remove(ctx)) // nobody comes back to this node's
	}
	if s.overflows != nil {
		errs = append(errs, s.overflows.Close(ctx))
	}
	s.background.Wait()
	return errors.Join(append(errs, s.meter.close())...)
}

// Ready shows that the node does not hear of the ends of sessions. While it tries for the first time, and the bus is there, the node is not
// ready: nobody is sent to it in vain. Else this does not make the node unready: its other services do without the bus, and who connects
// meanwhile is told to come again.
func (s *Service) Ready(ctx context.Context) error {
	switch {
	case s.listening.Load():
		return nil
	case s.waits.Load(), s.cfg.Bus.Ready(ctx) != nil:
		return host.Degraded(errors.New("connect: the node does not hear yet which sessions end, and takes no connections; the bus is away"))
	default:
		return errors.New("connect: the node is about to hear which sessions end, and takes no connections yet")
	}
}

// Figures are the connections.
func (s *Service) Figures() map[string]float64 {
	return map[string]float64{"sessions": float64(s.held.count()), "maxSessions": float64(s.cfg.MaxSessions)}
}
