package guard

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/problem"
)

// The headers by which a request shows who it is from. They end at the node that reads them.
const (
	TokenHeader = "Bannou-Token" //nolint:gosec // a name, no secret
	AppHeader   = "Bannou-App-Id"
)

// BehalfHeader names the app whose token let a request in, on its whole way through nodes. Only nodes are believed.
const BehalfHeader = "Bannou-On-Behalf-Of"

// challenge is what is asked of a request without credentials (RFC 6750).
const challenge = `Bearer realm="bannou"`

// Config describes a Guard. Without Token, TokenFile and Certificates it guards nothing.
type Config struct {
	// AppID is the node's own, by which it calls others.
	AppID string
	// Token is the mesh's token; TokenFile is the file it is in, instead: the first line is shown to others, each is taken.
	Token, TokenFile string
	// Certificates are the node's. Default: none, and HTTP without TLS.
	Certificates *Certificates
	// Apps are programs that are no nodes, by their tokens. Default: none.
	Apps *Tokens
	// Rules name, by a service or an app-id, the app-ids that may call it; Everyone for all. Default: everyone may call everything.
	Rules map[string][]string
	// Open are patterns of http.ServeMux that everyone may send to: their requests show what they have to show to who answers them,
	// and are nobody's here. Default: none.
	Open []string
	// OfNodes are headers, in their canonical form, that nodes alone may send; from others they are taken away. Default: none.
	OfNodes []string
	// Resolve tells the app-id that a service is on, for calls on the invoke endpoint. Default: the target itself.
	Resolve func(target string) (appID string)
	// Logger hears of files that changed. Default: nobody.
	Logger *slog.Logger
	// MeterProvider gets bannou.guard.refusals, a counter by reason: no_credentials, wrong_credentials, forbidden. Default: none.
	MeterProvider metric.MeterProvider
}

// A Guard is what a node asks and shows. It is safe for concurrent use. A nil Guard lets everyone in.
type Guard struct {
	cfg       Config
	token     *watched[secrets] // nil: none
	refusals  metric.Int64Counter
	strangers strangers
}

// secrets are the mesh's token, as it is shown, and those that are taken.
type secrets struct {
	shown []string
	taken table
}

// meshToken is whose the mesh's token is in a table: no app can have this name.
const meshToken = Everyone

// New makes a guard; nil when there is nothing to guard with.
func New(cfg Config) (*Guard, error) {
	if cfg.Token == "" && cfg.TokenFile == "" && cfg.Certificates == nil {
		if len(cfg.Rules) > 0 {
			return nil, errors.New("guard: rules name callers, and nothing shows who calls: set the mesh's token, or certificates")
		}
		return nil, nil //nolint:nilnil // documented: a nil Guard lets everyone in
	}
	if cfg.Resolve == nil {
		cfg.Resolve = func(target string) string { return target }
	}
	if err := checkRules(cfg.Rules); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	g := &Guard{cfg: cfg, strangers: strangers{log: cfg.Logger}}
	if err := g.readToken(); err != nil {
		return nil, fmt.Errorf("guard: the mesh's token: %w", err)
	}
	provider := cfg.MeterProvider
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	var err error
	g.refusals, err = provider.Meter("github.com/bannou-mesh/bannou/services/guard").Int64Counter("bannou.guard.refusals",
		metric.WithUnit("{request}"), metric.WithDescription("Requests that the node did not let in, by reason."))
	return g, err
}

func (g *Guard) readToken() (err error) {
	switch {
	case g.cfg.TokenFile != "":
		g.token, err = watch("the mesh's tokens", []string{g.cfg.TokenFile}, func() (secrets, error) {
			lines, err := ReadTokens(g.cfg.TokenFile)
			if err != nil {
				return secrets{}, err
			}
			return newSecrets(lines)
		}, g.cfg.Logger)
	case g.cfg.Token != "":
		var s secrets
		if s, err = newSecrets([]string{g.cfg.Token}); err == nil {
			g.token = unchanging(s)
		}
	}
	return err
}

func newSecrets(tokens []string) (secrets, error) {
	s := secrets{shown: tokens[:1]}
	var err error
	for _, token := range tokens {
		if tokenErr := checkToken(token); tokenErr != nil {
			return secrets{}, fmt.Errorf("this is %w", tokenErr)
		}
	}
	// Under a name that checks of apps refuse, so that no app is taken for the mesh.
	s.taken, err = table(nil).with("mesh", tokens)
	for i := range s.taken {
		s.taken[i].app = meshToken
	}
	return s, err
}

// Server is how the node answers, nil without TLS.
func (g *Guard) Server() *tls.Config {
	if g == nil || g.cfg.Certificates == nil {
		return nil
	}
	return g.cfg.Certificates.Server()
}

// Client makes connections to instances; nil without TLS.
func (g *Guard) Client() func(appID string) *tls.Config {
	if g == nil || g.cfg.Certificates == nil {
		return nil
	}
	return g.cfg.Certificates.Client
}

// Authorize shows, in the headers of a call to another node, who calls. It replaces what is there.
func (g *Guard) Authorize(h http.Header) {
	if g == nil || g.token == nil {
		return
	}
	h[TokenHeader], h[AppHeader] = g.token.get().shown, []string{g.cfg.AppID}
}

type callerKey struct{}

// A caller is who a request is from.
type caller struct {
	app  string // its app-id, "" when it has none
	node bool   // it showed the mesh's token or a certificate, or is the node itself; else the token of an app
	// behalf is the app whose token let the request in, where a node has passed it on.
	behalf string
}

// Local is a handler for calls within the process: they are the node's own.
func (g *Guard) Local(next http.Handler) http.Handler {
	if g == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller{app: g.cfg.AppID, node: true})))
	})
}

// Caller is the app-id that a request is from, "" when it has none or was not asked.
func Caller(ctx context.Context) string {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c.app
}

// Admit lets a request in that matched a pattern of http.ServeMux, "" for none, and returns it with its caller. Otherwise the
// error is a problem: 401 for who it is not known, 403 for who may not. Headers that show who calls end here.
func (g *Guard) Admit(r *http.Request, pattern string) (*http.Request, error) {
	if g == nil {
		delete(r.Header, TokenHeader) // shown for nothing, and nobody else's
		return r, nil
	}
	ctx := r.Context()
	c, within := ctx.Value(callerKey{}).(caller)
	if !within && slices.Contains(g.cfg.Open, pattern) {
		for _, name := range []string{TokenHeader, AppHeader, BehalfHeader} {
			delete(r.Header, name)
		}
		dropOf(r.Header, g.cfg.OfNodes)
		return r, nil
	}
	if !within {
		var err error
		if c, err = g.identify(r); err != nil {
			return nil, err
		}
	}
	delete(r.Header, TokenHeader)
	delete(r.Header, AppHeader)
	if passed := r.Header[BehalfHeader]; c.node && len(passed) > 0 {
		c.behalf = cmp.Or(passed[0], "unknown")
	} else if !c.node { // whatever it says
		r.Header[BehalfHeader] = []string{c.app}
	}
	if !c.node {
		dropOf(r.Header, g.cfg.OfNodes)
	}
	keepOnTheWay(r.Header, BehalfHeader)
	r = r.WithContext(context.WithValue(ctx, callerKey{}, c))
	return r, g.allow(r, pattern, c)
}

// dropOf takes headers away.
func dropOf(h http.Header, names []string) {
	for _, name := range names {
		delete(h, name)
	}
}

// keepOnTheWay takes a header out of those that end at this hop, which a request may name in Connection (RFC 9110, 7.6.1).
func keepOnTheWay(h http.Header, name string) {
	var kept []string
	for _, line := range h["Connection"] {
		for option := range strings.SplitSeq(line, ",") {
			if option = strings.TrimSpace(option); option != "" && !strings.EqualFold(option, name) {
				kept = append(kept, option)
			}
		}
	}
	if delete(h, "Connection"); len(kept) > 0 {
		h["Connection"] = []string{strings.Join(kept, ", ")}
	}
}

// identify finds who a request is from.
func (g *Guard) identify(r *http.Request) (c caller, err error) {
	if app, given := certified(r.TLS); given {
		return caller{app: app, node: true}, nil
	}
	values := r.Header[TokenHeader]
	switch {
	case len(values) == 1:
		if c, known := g.owner(r, values[0]); known {
			return c, nil
		}
		if len(r.Header[mesh.HeaderCalled]) > 0 { // by a node; its other instances may have its token
			g.refused(r.Context(), "wrong_credentials")
			g.strangers.tell(r)
			return c, problem.New(problem.Misdirected,
				"the request's %s is not the mesh's token here: the tokens of the two nodes differ; give both the same", TokenHeader)
		}
		return c, g.unauthorized(r, "wrong_credentials", "the request's %s is neither the mesh's token nor that of an app here", TokenHeader)
	case len(values) > 1:
		return c, g.unauthorized(r, "wrong_credentials", "the request has %d headers %s; send one", len(values), TokenHeader)
	}
	token, given := Bearer(r.Header["Authorization"])
	if !given {
		return c, g.unauthorized(r, "no_credentials",
			"this node asks who calls: show a certificate of the mesh, or a token as Authorization: Bearer or %s", TokenHeader)
	}
	if c, known := g.owner(r, token); known {
		return c, nil
	}
	return c, g.unauthorized(r, "wrong_credentials",
		"the request's Authorization is neither the mesh's token nor that of an app here; a token for the call's target alone goes beside %s", TokenHeader)
}

// owner is who a token shows. Both tables are asked, whichever knows it.
func (g *Guard) owner(r *http.Request, token string) (c caller, known bool) {
	ofMesh := ""
	if g.token != nil {
		ofMesh = g.token.get().taken.owner(token)
	}
	app := g.cfg.Apps.App(token)
	if ofMesh == "" {
		return caller{app: app}, app != ""
	}
	named := r.Header[AppHeader]
	if len(named) != 1 || mesh.ValidateName("appId", named[0]) != nil {
		return caller{node: true}, true // let in without a name, which no rule grants anything
	}
	return caller{app: named[0], node: true}, true
}

func (g *Guard) unauthorized(r *http.Request, reason, format string, args ...any) error {
	g.refused(r.Context(), reason)
	return problem.New(problem.Unauthorized, format, args...).Challenge(challenge)
}

func (g *Guard) refused(ctx context.Context, reason string) {
	g.refusals.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
}
