package daprstate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Driver keeps stores in a sidecar's components. It is safe for concurrent use.
type Driver struct {
	cfg     Config
	sidecar sidecar
	closed  atomic.Bool

	mu         sync.Mutex
	components map[string]component // once the sidecar was asked; nil before
}

var _ state.Driver = (*Driver)(nil)

// A component is what the sidecar says of one.
type component struct {
	Name         string   `json:"name"`
	Type         string   `json:"type"`
	Capabilities []string `json:"capabilities"`
}

// counts reports whether ETags are numbers that each save counts up by one.
func (c component) counts() bool { return c.Type == "state.redis" }

// New returns a driver. It does not connect: a sidecar that is away shows in Ready and in the first operation.
func New(cfg Config) (*Driver, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	d := &Driver{cfg: cfg, sidecar: sidecar{base: strings.TrimSuffix(cfg.Endpoint, "/"), token: cfg.Token}}
	transport := cfg.Transport
	if transport == nil {
		own := http.DefaultTransport.(*http.Transport).Clone()
		own.Proxy, own.MaxIdleConns, own.MaxIdleConnsPerHost, own.DisableCompression = nil, 256, 256, true
		transport, d.sidecar.idle = own, own.CloseIdleConnections
	}
	d.sidecar.client = &http.Client{Transport: transport}
	return d, nil
}

// Backend returns "dapr".
func (d *Driver) Backend() string { return "dapr" }

// Open returns the store in its component. A sidecar that is there and has no such component is an error that names it; one that is away is not.
func (d *Driver) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e := &engine{driver: d, store: cfg.Name, component: cfg.Name}
	if d.cfg.Place != nil {
		e.component, e.prefix = d.cfg.Place(cfg.Name)
	}
	if _, err := d.component(ctx, e.component); err != nil && !errors.Is(err, errAway) {
		return nil, err
	}
	return e, nil
}

// errAway marks that the sidecar did not say what it has.
var errAway = errors.New("the sidecar does not say which components it has")

// component is what the sidecar has under a name. It is asked until it has answered once with that name.
func (d *Driver) component(ctx context.Context, name string) (component, error) {
	d.mu.Lock()
	known, ok := d.components[name]
	d.mu.Unlock()
	if ok {
		return known, nil
	}
	var all struct {
		Components []component `json:"components"`
	}
	if err := d.sidecar.get(ctx, "/v1.0/metadata", &all); err != nil {
		return component{}, fmt.Errorf("%w: %w", errAway, err)
	}
	found := map[string]component{}
	for _, c := range all.Components {
		if strings.HasPrefix(c.Type, "state.") {
			found[c.Name] = c
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.components = found
	if known, ok = found[name]; !ok {
		return known, fmt.Errorf("daprstate: %w: the sidecar has no state component %q: give it one, or name the one that keeps the store", state.ErrUnavailable, name)
	}
	return known, nil
}

// Ready asks the sidecar whether it can reach what it needs.
func (d *Driver) Ready(ctx context.Context) error {
	if d.closed.Load() {
		return errClosed
	}
	return d.sidecar.get(ctx, "/v1.0/healthz/outbound", nil)
}

var errClosed = fmt.Errorf("daprstate: %w: the driver is closed", state.ErrUnavailable)

// Close closes idle connections. Operations after it fail.
func (d *Driver) Close() error {
	if !d.closed.Swap(true) && d.sidecar.idle != nil {
		d.sidecar.idle()
	}
	return nil
}
