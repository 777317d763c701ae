package config

import (
	"fmt"
	"time"
)

// Connect configures the gateway of players.
type Connect struct {
	MaxSessions      int           `name:"max-sessions" default:"10000" help:"Connections that this node holds."`
	MaxMessageBytes  int           `name:"max-message-bytes" default:"65536" help:"The longest message that a client may send."`
	MaxResponseBytes int           `name:"max-response-bytes" default:"1048576" help:"The longest answer of a service that a client is sent."`
	Rate             int           `default:"50" help:"Messages that a client may send in a second, for long."`
	Burst            int           `default:"100" help:"Messages that it may send at once. What is over is refused, and a client that goes on for ten times as many is cut off."`
	MaxChannels      int           `name:"max-channels" default:"16" help:"Channels of a client that may be in use at a time, beside channel 0."`
	MaxCalls         int           `name:"max-calls" default:"32" help:"Calls of a client that may be under way, or wait for the one before them on their channel."`
	CallTimeout      time.Duration `name:"call-timeout" default:"10s" help:"How long a call may take."`
	MaxOutgoingBytes int           `name:"max-outgoing-bytes" default:"1048576" help:"What may wait to be sent to a client, in bytes. One that reads more slowly is cut off, and may reconnect."`
	WriteTimeout     time.Duration `name:"write-timeout" default:"10s" help:"How long a client may take nothing of what it is sent."`
	Window           int           `default:"64" help:"Events that a client may have without acknowledging one. Further ones wait in its queue."`
	MaxWaitingEvents int           `name:"max-waiting-events" default:"10000" help:"Events that may wait in the queue of a session, beside those of its window; the same on all nodes. When there are more, all of them are given up, the client is cut off, and begins anew with an access token."`
	MaxWaitingBytes  int           `name:"max-waiting-bytes" default:"16777216" help:"The same in bytes."`
	AckTimeout       time.Duration `name:"ack-timeout" default:"1m" help:"How long a client may leave an event unacknowledged."`
	PingInterval     time.Duration `name:"ping-interval" default:"30s" help:"How often a client is asked whether it is there. One of which nothing is heard for twice as long is cut off."`
	ReconnectWithin  time.Duration `name:"reconnect-within" default:"5m" help:"How long a session, and its events, wait for a client whose connection has ended; the same on all nodes."`
	TokenLife        time.Duration `name:"token-life" default:"24h" help:"How long a client can come back with reconnection tokens until it has to show an access token again."`
}

// checkConnect refuses what makes no sense.
func (c *Config) checkConnect() error {
	v := &c.Connect
	for _, d := range []struct {
		flag       string
		value      time.Duration
		least, max time.Duration
	}{
		{"call-timeout", v.CallTimeout, 10 * time.Millisecond, 10 * time.Minute},
		{"write-timeout", v.WriteTimeout, 10 * time.Millisecond, 10 * time.Minute},
		{"ack-timeout", v.AckTimeout, 100 * time.Millisecond, time.Hour},
		{"ping-interval", v.PingInterval, 100 * time.Millisecond, time.Hour},
		{"reconnect-within", v.ReconnectWithin, time.Second, 24 * time.Hour},
		{"token-life", v.TokenLife, time.Second, 90 * 24 * time.Hour},
	} {
		if d.value < d.least || d.value > d.max {
			return fmt.Errorf("--connect-%s %s: choose from %s to %s", d.flag, d.value, d.least, d.max)
		}
	}
	for _, n := range []struct {
		flag              string
		value, least, max int
	}{
		{"max-sessions", v.MaxSessions, 1, 1_000_000},
		{"max-message-bytes", v.MaxMessageBytes, 1 << 10, 16 << 20},
		{"max-response-bytes", v.MaxResponseBytes, 1 << 10, 64 << 20},
		{"rate", v.Rate, 1, 1_000_000},
		{"burst", v.Burst, 1, 1_000_000},
		{"max-channels", v.MaxChannels, 1, 65535},
		{"max-calls", v.MaxCalls, 1, 10_000},
		{"max-outgoing-bytes", v.MaxOutgoingBytes, 1 << 10, 1 << 30},
		{"window", v.Window, 1, 10_000},
		{"max-waiting-events", v.MaxWaitingEvents, 1, 10_000_000},
		{"max-waiting-bytes", v.MaxWaitingBytes, 1 << 10, 1 << 40},
	} {
		if n.value < n.least || n.value > n.max {
			return fmt.Errorf("--connect-%s %d: choose from %d to %d", n.flag, n.value, n.least, n.max)
		}
	}
	return nil
}
