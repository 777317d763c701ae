package node

import (
	"log/slog"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/services/guard"
)

// newGuard makes what the node asks its callers for, and shows to other nodes; nil when it is for everyone.
func (n *Node) newGuard(cfg *config.Config, log *slog.Logger) (*guard.Guard, error) {
	m := &cfg.Mesh
	c := guard.Config{
		AppID: cfg.AppID, Token: m.Token, TokenFile: m.TokenFile, Apps: n.apps, Rules: m.Access, Logger: log,
		MeterProvider: n.metrics.MeterProvider(),
		Resolve: func(target string) string { // no request comes before there is a directory
			appID, _ := n.directory.Resolve(target)
			return appID
		},
	}
	if m.TLSCertFile != "" {
		var err error
		if c.Certificates, err = guard.NewCertificates(m.TLSCertFile, m.TLSKeyFile, m.TLSCAFile, cfg.AppID, log); err != nil {
			return nil, err
		}
	}
	return guard.New(c)
}
