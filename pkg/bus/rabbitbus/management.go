package rabbitbus

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// maxListing bounds what is read of an answer of the management API.
const maxListing = 64 << 20

// management asks RabbitMQ's management API for what AMQP cannot tell: the queues of others.
type management struct {
	base           string // without user and password
	user, password string
	vhost          string
	client         *http.Client
}

// newManagement reads the API's URL; nil when there is none. Without a user of its own the broker's is used.
func newManagement(cfg *Config) (*management, error) {
	if cfg.ManagementURL == "" {
		return nil, nil
	}
	u, err := url.Parse(cfg.ManagementURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%w: ManagementURL %s; it is like http://user:password@host:15672", bus.ErrInvalid, redactURL(cfg.ManagementURL))
	}
	broker, err := amqp.ParseURI(cfg.URLs[0])
	if err != nil {
		return nil, fmt.Errorf("%w: RabbitMQ URL %s", bus.ErrInvalid, redactURL(cfg.URLs[0]))
	}
	m := &management{user: broker.Username, password: broker.Password, vhost: broker.Vhost, client: &http.Client{Transport: &http.Transport{}}}
	if u.User != nil {
		m.user = u.User.Username()
		m.password, _ = u.User.Password()
		u.User = nil
	}
	m.base = strings.TrimSuffix(u.String(), "/")
	return m, nil
}

// queues lists all queues of the virtual host with their bindings to exchanges. Counts are as old as the API's
// statistics, up to 5 s.
func (m *management) queues(ctx context.Context) ([]bus.QueueInfo, map[string]bool, error) {
	var queues []struct {
		Name      string `json:"name"`
		Exclusive bool   `json:"exclusive"`
		Ready     int64  `json:"messages_ready"`
		Consumers int64  `json:"consumers"`
	}
	if err := m.get(ctx, "/api/queues/", &queues); err != nil {
		return nil, nil, err
	}
	var bindings []struct {
		Source      string `json:"source"`
		Destination string `json:"destination"`
		Kind        string `json:"destination_type"`
		Key         string `json:"routing_key"`
	}
	if err := m.get(ctx, "/api/bindings/", &bindings); err != nil {
		return nil, nil, err
	}
	bound := map[string]bus.Binding{}
	for _, b := range bindings {
		// An empty source is AMQP's default exchange, to which every queue is bound by its name.
		if _, found := bound[b.Destination]; b.Kind == "queue" && b.Source != "" && !found {
			bound[b.Destination] = bus.Binding{Exchange: b.Source, Pattern: b.Key}
		}
	}
	list := make([]bus.QueueInfo, len(queues))
	exclusive := map[string]bool{}
	for i, q := range queues {
		b := bound[q.Name]
		list[i] = bus.QueueInfo{Name: q.Name, Topic: b.Pattern, Exchange: b.Exchange, Messages: q.Ready, Consumers: q.Consumers}
		exclusive[q.Name] = q.Exclusive
	}
	return list, exclusive, nil
}

func (m *management) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base+path+url.PathEscape(m.vhost), nil)
	if err != nil {
		return err
	}
	req.SetBasicAuth(m.user, m.password)
	res, err := m.client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: ask the management API: %w", bus.ErrUnavailable, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: ask the management API at %s: it answered %s; its user needs the tag monitoring or management", bus.ErrUnavailable, m.base, res.Status)
	}
	if err := json.UnmarshalRead(io.LimitReader(res.Body, maxListing), into); err != nil {
		return fmt.Errorf("%w: read the management API's answer: %w", bus.ErrUnavailable, err)
	}
	return nil
}

// close drops idle connections.
func (m *management) close() {
	if m != nil {
		m.client.CloseIdleConnections()
	}
}
