package node

import (
	"github.com/bannou-mesh/bannou/services/connect"
	"github.com/bannou-mesh/bannou/services/host"
)

// connect makes the gateway, which calls the auth service, and those of players, wherever they are.
func (p parts) connect() (host.Service, error) {
	c := p.cfg.Connect
	return connect.New(connect.Config{
		Factory: p.factory, Bus: p.bus, Broker: p.broker, Caller: p.client, Auth: connect.NewMeshAuth(p.client), InstanceID: p.instanceID,
		MaxSessions: c.MaxSessions, MaxMessageBytes: c.MaxMessageBytes, MaxResponseBytes: c.MaxResponseBytes, Rate: c.Rate, Burst: c.Burst,
		MaxChannels: c.MaxChannels, MaxCalls: c.MaxCalls, CallTimeout: c.CallTimeout, MaxOutgoingBytes: c.MaxOutgoingBytes,
		MaxWaitingEvents: c.MaxWaitingEvents, MaxWaitingBytes: int64(c.MaxWaitingBytes),
		WriteTimeout: c.WriteTimeout, Window: c.Window, AckTimeout: c.AckTimeout, PingInterval: c.PingInterval,
		ReconnectWithin: c.ReconnectWithin, TokenLife: c.TokenLife, Logger: p.log, MeterProvider: p.meter,
	})
}
