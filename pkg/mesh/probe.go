package mesh

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// ProberConfig configures a Prober. Registry is required.
type ProberConfig struct {
	// Registry tells whom to probe, and is told what was found.
	Registry *Registry
	// Interval is the time between two rounds. In each, one of all probers asks every instance once. Default 10 s.
	Interval time.Duration
	// Timeout bounds one probe. Default 2 s.
	Timeout time.Duration
	// Failures is how many probes of an instance must fail in a row before it counts as degraded. Default 3.
	Failures int
	// Transport sends the probes. Endpoints come from whoever writes to the registry: it should connect only where the node
	// may. Default: that of a client, see NewTransport, without kept connections.
	Transport http.RoundTripper
	// TLS makes the connections to instances of an app-id, as ClientConfig.TLS does; Transport is an *http.Transport then. Default:
	// HTTP without TLS.
	TLS func(appID string) *tls.Config
	// Logger hears of rounds that failed and of instances that do not answer. Default: nobody.
	Logger *slog.Logger
}

// A Prober asks instances for GET /healthz, for those that send heartbeats and answer nobody: a listener that hangs, a
// network that leads to the registry and not to them. Any answer below 500 is a sign of life, also of a program that has no
// such path. What is found may make an instance degraded; it never refreshes a heartbeat, so nobody lives longer by it.
//
// Any number of probers may work on one registry. They take the rounds in no fixed order, so that one that is cut off itself
// is contradicted by the others.
type Prober struct {
	cfg    ProberConfig
	client *http.Client
	scheme string
}

// NewProber returns a prober that does nothing before Run.
func NewProber(cfg ProberConfig) (*Prober, error) {
	if cfg.Registry == nil {
		return nil, errors.New("a prober needs a registry")
	}
	cfg.Interval = cmp.Or(cfg.Interval, 10*time.Second)
	cfg.Timeout = cmp.Or(cfg.Timeout, 2*time.Second)
	cfg.Failures = cmp.Or(cfg.Failures, 3)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Transport == nil {
		t := NewTransport()
		t.DisableKeepAlives = true // a kept connection says nothing about new ones
		cfg.Transport = t
	}
	scheme := "http"
	if cfg.TLS != nil {
		plain, ok := cfg.Transport.(*http.Transport)
		if !ok {
			return nil, errors.New("a prober makes TLS connections with an *http.Transport: leave out one of the two")
		}
		cfg.Transport, scheme = &tlsTransport{plain: plain, config: cfg.TLS}, "https"
	}
	return &Prober{cfg: cfg, scheme: scheme, client: &http.Client{
		Transport: cfg.Transport, Timeout: cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Run probes until the context ends.
func (p *Prober) Run(ctx context.Context) {
	for {
		// By chance, so that it is not always the same prober that comes first.
		timer := time.NewTimer(p.cfg.Interval/2 + rand.N(p.cfg.Interval)) //nolint:gosec // spreads nodes, guards nothing
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := p.round(ctx); err != nil && ctx.Err() == nil {
			p.cfg.Logger.Warn("instances could not be probed; trying again", "error", err)
		}
	}
}

// probesAtOnce bounds the probes under way.
const probesAtOnce = 64

// round probes all instances, unless another prober did so within the interval.
func (p *Prober) round(ctx context.Context) error {
	ours, err := p.cfg.Registry.claimRound(ctx, p.cfg.Interval)
	if err != nil || !ours {
		return err
	}
	endpoints, err := p.cfg.Registry.List(ctx, true)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var errs []error
	var under sync.WaitGroup
	slots := make(chan struct{}, probesAtOnce)
	for i := range endpoints {
		e := &endpoints[i]
		if e.Status != StatusHealthy && e.Status != StatusDegraded {
			continue // it takes no requests by its own word
		}
		slots <- struct{}{}
		under.Go(func() {
			defer func() { <-slots }()
			if err := p.probe(ctx, e); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	under.Wait()
	return errors.Join(errs...)
}

// probe asks one instance and tells the registry what was found. An error is the registry's.
func (p *Prober) probe(ctx context.Context, e *Endpoint) error {
	failure := p.ask(ctx, e)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // cut short, it says nothing
	}
	turned, err := p.cfg.Registry.probed(ctx, e, failure == nil, p.cfg.Failures)
	switch {
	case err != nil:
		return err
	case turned && failure != nil:
		p.cfg.Logger.Warn("an instance sends heartbeats and does not answer probes; it counts as degraded",
			"appId", e.AppID, "instanceId", e.InstanceID, "address", e.Address(), "error", failure)
	case turned:
		p.cfg.Logger.Info("an instance answers probes again", "appId", e.AppID, "instanceId", e.InstanceID)
	}
	return nil
}

func (p *Prober) ask(ctx context.Context, e *Endpoint) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.scheme+"://"+e.Address()+"/healthz", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(calling(req, p.scheme, e.AppID))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // what it says does not matter
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("/healthz answered %d", resp.StatusCode)
	}
	return nil
}

// claimRound reports whether this is the first prober to ask in this interval.
func (r *Registry) claimRound(ctx context.Context, interval time.Duration) (bool, error) {
	value, err := json.Marshal(map[string]time.Time{"begun": r.now()})
	if err != nil {
		return false, err
	}
	err = r.table.TryPut(ctx, keyProbe, value, "", interval*9/10)
	if errors.Is(err, ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("write %s: %w", keyProbe, err)
	}
	return true, nil
}

// probed takes in what a probe of an instance found. It counts failures in a row, and at the given number the instance is
// degraded until a probe succeeds, for as long as probes are made at all. turned: it is now, or is no longer. When the
// instance was last seen stays as it is.
func (r *Registry) probed(ctx context.Context, e *Endpoint, alive bool, failures int) (turned bool, err error) {
	err = retry(ctx, func() error {
		turned = false
		now := r.now()
		health, etag, err := read[appHealth](ctx, r.table, healthKey(e.AppID))
		if err = r.forgive(err); err != nil {
			return err
		}
		line := health.find(e.InstanceID)
		if line == nil || line.Left || now.Sub(line.LastSeen) >= GoneAfter || alive && line.Probes == (probes{}) {
			return nil
		}
		before := line.Probes.failing(now)
		if alive {
			line.Probes = probes{}
		} else {
			line.Probes.Failed++
			line.Probes.Failing = before || line.Probes.Failed >= failures
			line.Probes.Last = now
		}
		turned = before != line.Probes.failing(now)
		return r.writeHealth(ctx, e.AppID, &health, etag, now)
	})
	if err != nil || !turned {
		return false, err
	}
	return true, r.announceProbed(ctx, e, alive)
}

// announceProbed tells of an instance that is degraded by its probes, or no longer, if it calls itself healthy.
func (r *Registry) announceProbed(ctx context.Context, e *Endpoint, alive bool) error {
	known, etag, err := read[Endpoint](ctx, r.table, registryKey(e.AppID, e.InstanceID))
	if err = r.forgive(err); err != nil {
		return err
	}
	if status, gone := known.at(r.now()); etag == "" || gone || status != StatusHealthy {
		return nil
	}
	change := Change{Kind: ChangeRegistered, Endpoint: known}
	if !alive {
		change.Kind, change.Endpoint.Status, change.Unreachable = ChangeDegraded, StatusDegraded, true
	}
	r.announce(ctx, change)
	return nil
}
