package connect

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// Config describes a Service. Every zero value has the default beside it.
type Config struct {
	// Factory has the store SessionStore. Required.
	Factory *state.Factory
	// Bus tells of connections, and hears of capabilities and of ends. Required.
	Bus *bus.Bus
	// Broker has the sessions' queues. It is the bus's driver, below it: what a session gets is passed on undecoded and in order, and
	// settled when the client acknowledges it. Required.
	Broker bus.Driver
	// Caller calls services. Required.
	Caller Caller
	// Auth says whose an access token is. Required.
	Auth Authenticator
	// InstanceID is this node's name among those that hold connections. Required.
	InstanceID string

	// MaxSessions is how many connections this node holds. Default: 10 000.
	MaxSessions int
	// MaxMessageBytes bounds a message of a client. Default: 64 KiB.
	MaxMessageBytes int
	// MaxResponseBytes bounds what a service answers. Default: 1 MiB.
	MaxResponseBytes int
	// Rate is how many messages a client may send in a second, for long, and Burst at once. Default: 50 and 100.
	Rate, Burst int
	// MaxChannels is how many channels of a session may be in use at a time, beside channel 0. Default: 16.
	MaxChannels int
	// MaxCalls is how many calls of a session may be under way or wait for their turn. Default: 32.
	MaxCalls int
	// CallTimeout bounds a call. Default: 10 s.
	CallTimeout time.Duration
	// MaxOutgoingBytes bounds what waits to be sent to a client; who is slower is cut off. Default: 1 MiB.
	MaxOutgoingBytes int
	// WriteTimeout is how long a client may take nothing. Default: 10 s.
	WriteTimeout time.Duration
	// Window is how many events a client may have without acknowledging one. Default: 64.
	Window int
	// MaxWaitingEvents and MaxWaitingBytes bound what waits in the queue of a session, those that the client has not acknowledged not
	// counted. Of a session for which more waits, all of it is given up, and its connection closed. Queues of nodes with other bounds
	// are made anew when their clients come. Defaults: 10 000, and 16 MiB.
	MaxWaitingEvents int
	MaxWaitingBytes  int64
	// AckTimeout is how long it may leave one unacknowledged. Default: 1 min.
	AckTimeout time.Duration
	// PingInterval is how often a client is asked whether it is there; one of which nothing is heard for twice as long is not.
	// Default: 30 s.
	PingInterval time.Duration
	// ReconnectWithin is how long a session waits for its client. Default: 5 min.
	ReconnectWithin time.Duration
	// TokenLife is how long a client can come back, again and again, without showing an access token. Default: 24 h.
	TokenLife time.Duration
	// HandshakeTimeout bounds making a connection. Default: 10 s.
	HandshakeTimeout time.Duration

	// Logger hears of what fails. It is given no token. Default: none.
	Logger *slog.Logger
	// MeterProvider receives the metrics bannou.connect.*. Default: none.
	MeterProvider metric.MeterProvider
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// A Caller calls services by name, as mesh.Client does.
type Caller interface {
	Do(ctx context.Context, target string, r *http.Request) (*http.Response, error)
}

func (c *Config) complete() error {
	if c.Factory == nil || c.Bus == nil || c.Broker == nil || c.Caller == nil || c.Auth == nil || c.InstanceID == "" {
		return errors.New("connect: the service needs a factory, a bus, its broker, a caller, auth and an instance id")
	}
	c.MaxSessions = cmp.Or(c.MaxSessions, 10_000)
	c.MaxMessageBytes = cmp.Or(c.MaxMessageBytes, 64<<10)
	c.MaxResponseBytes = cmp.Or(c.MaxResponseBytes, 1<<20)
	c.Rate = cmp.Or(c.Rate, 50)
	c.Burst = cmp.Or(c.Burst, 100)
	c.MaxChannels = cmp.Or(c.MaxChannels, 16)
	c.MaxCalls = cmp.Or(c.MaxCalls, 32)
	c.CallTimeout = cmp.Or(c.CallTimeout, 10*time.Second)
	c.MaxOutgoingBytes = cmp.Or(c.MaxOutgoingBytes, 1<<20)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 10*time.Second)
	c.Window = cmp.Or(c.Window, 64)
	c.MaxWaitingEvents = cmp.Or(c.MaxWaitingEvents, 10_000)
	c.MaxWaitingBytes = cmp.Or(c.MaxWaitingBytes, 16<<20)
	c.AckTimeout = cmp.Or(c.AckTimeout, time.Minute)
	c.PingInterval = cmp.Or(c.PingInterval, 30*time.Second)
	c.ReconnectWithin = cmp.Or(c.ReconnectWithin, 5*time.Minute)
	c.TokenLife = cmp.Or(c.TokenLife, 24*time.Hour)
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, 10*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MeterProvider == nil {
		c.MeterProvider = noop.NewMeterProvider()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

// renewEvery is how often the record of a session that is connected is renewed.
func (c *Config) renewEvery() time.Duration { return c.ReconnectWithin / 4 }

// recordLife is how long a record outlives the last word about it. A node that dies has renewed it renewEvery ago, or less.
func (c *Config) recordLife() time.Duration { return c.ReconnectWithin + c.renewEvery() }
