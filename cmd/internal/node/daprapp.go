package node

import (
	"context"
	"log/slog"
	"net"
	"strconv"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/membership"
)

// appMember is the app's part in the mesh: others call it where it listens, without this node between, or where this node takes its calls.
type appMember struct{ *membership.Member }

// Name is "dapr-app".
func (appMember) Name() string { return "dapr-app" }

func newAppMember(n *Node, cfg *config.Config, registry *mesh.Registry, log *slog.Logger) (appMember, error) {
	host, port, err := appAddress(cfg, n.dapr.calls)
	if err != nil {
		return appMember{}, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return appMember{}, err
	}
	if shared := cfg.Messaging.Backend != "memory"; shared && isLoopback(host) {
		log.WarnContext(context.Background(), "the app is in the mesh with an address of this machine alone: nodes on others cannot call it; set --dapr-app-calls-listen, or --dapr-app-address to one that they reach",
			"appId", cfg.Dapr.AppID, "address", net.JoinHostPort(host, port))
	}
	member, err := membership.NewMember(membership.Config{
		Registry: registry, Bus: n.bus, AppID: cfg.Dapr.AppID, Host: host, Port: number, Interval: cfg.Mesh.HeartbeatInterval, Logger: log,
		Zone: cfg.Mesh.Zone, Import: n.directory.Refresh, Unmeasured: true,
	})
	return appMember{member}, err
}

// appAddress is where others call the app. What speaks gRPC is called by way of this node, or by nobody but its programs.
func appAddress(cfg *config.Config, calls net.Listener) (host, port string, err error) {
	if calls == nil {
		return net.SplitHostPort(cfg.Dapr.AppAddress)
	}
	at, port, err := net.SplitHostPort(calls.Addr().String())
	if err != nil {
		return "", "", err
	}
	if net.ParseIP(at).IsUnspecified() { // the configuration has checked that there is another
		at, _, err = net.SplitHostPort(cfg.Advertise)
	}
	return at, port, err
}

func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
