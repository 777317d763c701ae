package mesh

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

type RegistryConfig struct {
	Logger          *slog.Logger
	AnnounceTimeout time.Duration // how long an announcement may take before it is given up and logged; default 2 s
}
type Registry struct{}

func NewRegistry(table Table, feed Feed, cfg RegistryConfig) (*Registry, error) { return nil, nil }
func (r *Registry) Register(ctx context.Context, e Endpoint) error              { return ErrUnavailable }
func (r *Registry) Heartbeat(ctx context.Context, e Endpoint) error             { return ErrUnavailable }
func (r *Registry) Deregister(ctx context.Context, appID, instanceID string) (bool, error) {
	return false, ErrUnavailable
}
func (r *Registry) Endpoints(ctx context.Context, appID string, includeUnhealthy bool) ([]Endpoint, error) {
	return nil, ErrUnavailable
}
func (r *Registry) List(ctx context.Context, includeUnhealthy bool) ([]Endpoint, error) {
	return nil, ErrUnavailable
}
func (r *Registry) Sweep(ctx context.Context) error                { return ErrUnavailable }
func (r *Registry) Mappings(ctx context.Context) (Mappings, error) { return Mappings{}, ErrUnavailable }
func (r *Registry) SetMappings(ctx context.Context, services map[string]string, source string) (Mappings, error) {
	return Mappings{}, ErrUnavailable
}

// ApplyMappings takes over mappings announced by another program if their version is higher than the one in force.
func (r *Registry) ApplyMappings(ctx context.Context, m Mappings) (applied bool, err error) {
	return false, ErrUnavailable
}
func (r *Registry) CurrentConfig(ctx context.Context) (Config, error) {
	return Config{}, ErrUnavailable
}
func (r *Registry) SetConfig(ctx context.Context, expectedVersion int64, c Config) (Config, error) {
	return Config{}, ErrUnavailable
}
func (r *Registry) ConfigHistory(ctx context.Context, limit int) ([]Config, error) {
	return nil, ErrUnavailable
}
func (r *Registry) RollbackConfig(ctx context.Context, version int64, source string) (Config, error) {
	return Config{}, ErrUnavailable
}

// Source is what a Directory reads; a *Registry is one.
type Source interface {
	List(ctx context.Context, includeUnhealthy bool) ([]Endpoint, error)
	Mappings(ctx context.Context) (Mappings, error)
}
type DirectoryConfig struct {
	RefreshInterval time.Duration // 15 s
	RefreshTimeout  time.Duration // 5 s
	MissInterval    time.Duration // 1 s
	Logger          *slog.Logger
}
type Directory struct{}

func NewDirectory(source Source, feed Feed, cfg DirectoryConfig) *Directory { return nil }
func (d *Directory) Run(ctx context.Context) error                          { return ErrUnavailable }
func (d *Directory) Refresh(ctx context.Context) error                      { return ErrUnavailable }
func (d *Directory) Age() time.Duration                                     { return 0 }
func (d *Directory) AppID(service string) string                            { return "" }
func (d *Directory) Mappings() Mappings                                     { return Mappings{} }
func (d *Directory) Endpoints(appID string) []*Endpoint                     { return nil }
func (d *Directory) Resolve(target string) (appID string, known bool)       { return "", false }

type ClientConfig struct {
	Directory        *Directory
	AppID            string
	InstanceID       string
	Local            http.Handler
	LocalServices    []string
	Balancer         Balancer
	Transport        http.RoundTripper
	Timeout          time.Duration
	MaxResponseBytes int64
	Logger           *slog.Logger
	MeterProvider    metric.MeterProvider
	TracerProvider   trace.TracerProvider
}
type Client struct{}

func NewClient(cfg ClientConfig) (*Client, error) { return nil, nil }
func (c *Client) Do(ctx context.Context, target string, req *http.Request) (*http.Response, error) {
	return nil, ErrUnavailable
}
func (c *Client) Route(appID string) (*Endpoint, error) { return nil, ErrUnavailable }
func (c *Client) Close()                                {}
func Invoke[Req, Resp any](ctx context.Context, c *Client, target, method string, req Req) (Resp, error) {
	var r Resp
	return r, ErrUnavailable
}

type ResponseError struct {
	StatusCode          int
	Code, Title, Detail string
	Body                []byte
}

func (e *ResponseError) Error() string { return e.Title }

type ProxyConfig struct {
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)
	MaxHops      int
}

func NewProxy(c *Client, cfg ProxyConfig) http.Handler             { return nil }
func WithRequestID(ctx context.Context, id string) context.Context { return ctx }
func RequestID(ctx context.Context) string                         { return "" }
func registryKey(a, b string) string                               { return "service:registry:" + a + ":" + b }
