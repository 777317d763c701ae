package node

import (
	"log/slog"
	"net/http"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/connect"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
)

// newGuard makes what the node asks its callers for, and shows to other nodes; nil when it is for everyone.
func (n *Node) newGuard(cfg *config.Config, log *slog.Logger) (*guard.Guard, error) {
	m := &cfg.Mesh
	c := guard.Config{
		AppID: cfg.AppID, Token: m.Token, TokenFile: m.TokenFile, Apps: n.apps, Rules: m.Access, Logger: log,
		Open: []string{connect.Pattern}, OfNodes: []string{connect.SessionHeader, connect.AccountHeader},
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

// admit lets in whom the guard lets in, with what is for this app-id. Who it knows, and may have misdirected, hears that rather than
// what this node's rules say.
func admit(appID string, g *guard.Guard) func(*http.Request, string) (*http.Request, error) {
	return func(r *http.Request, pattern string) (*http.Request, error) {
		admitted, err := g.Admit(r, pattern)
		if err == nil || problem.From(err).Code == problem.Forbidden {
			if misdirected := mesh.CheckAddressed(appID, r.Header); misdirected != nil {
				return nil, problem.New(problem.Misdirected, "%s", misdirected).Because(misdirected)
			}
		}
		return admitted, err
	}
}
