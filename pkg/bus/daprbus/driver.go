package daprbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Driver is a sidecar as a broker. It is safe for concurrent use.
type Driver struct {
	cfg    Config
	client *http.Client
	idle   func() // nil: the transport is the caller's

	mu       sync.Mutex
	readers  map[string][]*consumer // by topic
	asked    map[string]bool        // the topics that daprd was last told; nil: it has not asked
	attached bool                   // daprd was seen to be subscribed to all of them
	closed   bool
}

var _ bus.Driver = (*Driver)(nil)

// New returns a driver. It does not connect.
func New(cfg Config) (*Driver, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Driver{cfg: cfg, readers: map[string][]*consumer{}}
	transport := cfg.Transport
	if transport == nil {
		own := http.DefaultTransport.(*http.Transport).Clone()
		own.Proxy, own.MaxIdleConns, own.MaxIdleConnsPerHost, own.DisableCompression = nil, 256, 256, true
		transport, d.idle = own, own.CloseIdleConnections
	}
	d.client = &http.Client{Transport: transport}
	return d, nil
}

// Backend returns "dapr".
func (d *Driver) Backend() string { return "dapr" }

// Redeliver implements bus.Driver: Dapr reaches no queue alone.
func (d *Driver) Redeliver(context.Context, string, *bus.Message) error {
	return unsupported("Dapr cannot bring an event to one subscriber alone")
}

// Letters implements bus.Driver: dead letters are a topic like others there.
func (d *Driver) Letters(context.Context) (bus.Letters, error) {
	return nil, unsupported("Dapr keeps no dead letters that can be read: subscribe to the topic " + d.cfg.DeadLetterExchange)
}

// Queues lists the topics that this process is subscribed to. How many events wait, Dapr does not tell.
func (d *Driver) Queues(context.Context) ([]bus.QueueInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, bus.ErrClosed
	}
	var list []bus.QueueInfo
	for topic, readers := range d.readers {
		for _, c := range readers {
			list = append(list, bus.QueueInfo{Name: c.queue, Topic: topic, Consumers: 1})
		}
	}
	slices.SortFunc(list, func(a, b bus.QueueInfo) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// DeleteQueue implements bus.Driver: what the component keeps for the app is the component's.
func (d *Driver) DeleteQueue(context.Context, string) error {
	return unsupported("Dapr cannot remove what its component keeps for an app")
}

func unsupported(why string) error { return fmt.Errorf("daprbus: %w: %s", bus.ErrUnsupported, why) }

// Ready reports whether the sidecar can be published to, and is subscribed to all that this process reads.
func (d *Driver) Ready(ctx context.Context) error {
	d.mu.Lock()
	closed, topics, attached := d.closed, d.topics(), d.attached
	d.mu.Unlock()
	if closed {
		return bus.ErrClosed
	}
	if attached || len(topics) == 0 {
		_, err := d.do(ctx, http.MethodGet, "/v1.0/healthz/outbound", nil, nil)
		return err
	}
	body, err := d.do(ctx, http.MethodGet, "/v1.0/metadata", nil, nil)
	if err != nil {
		return err
	}
	var said struct {
		Subscriptions []struct {
			PubSub string `json:"pubsubname"`
			Topic  string `json:"topic"`
		} `json:"subscriptions"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return fmt.Errorf("%w: what the sidecar answers is not what Dapr does: %w", bus.ErrUnavailable, err)
	}
	for _, topic := range topics {
		if !slices.ContainsFunc(said.Subscriptions, func(s struct {
			PubSub string `json:"pubsubname"`
			Topic  string `json:"topic"`
		}) bool {
			return s.PubSub == d.cfg.PubSub && s.Topic == topic
		}) {
			return fmt.Errorf("%w: %w: the sidecar is not subscribed to %s", bus.ErrUnavailable, bus.ErrNotReading, topic)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attached = true
	return nil
}

// topics are those that somebody reads; d.mu is held.
func (d *Driver) topics() []string {
	var list []string
	for topic, readers := range d.readers {
		if len(readers) > 0 {
			list = append(list, topic)
		}
	}
	slices.Sort(list)
	return list
}

// Close ends the consumers: what is in work is answered with RETRY.
func (d *Driver) Close(ctx context.Context) error {
	d.mu.Lock()
	d.closed = true
	var all []*consumer
	for _, readers := range d.readers {
		all = append(all, readers...)
	}
	d.mu.Unlock()
	var errs []error
	for _, c := range all {
		errs = append(errs, c.Close(ctx))
		c.abandon()
	}
	if d.idle != nil {
		d.idle()
	}
	return errors.Join(errs...)
}

// do makes a request and returns the body of an answer 2xx. ErrUnavailable: it was not taken, or not sent. ErrNotConfirmed: it may have been. ErrInvalid: it never
// will be.
func (d *Driver) do(ctx context.Context, method, path string, header http.Header, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, d.cfg.Endpoint+path, bodyOf(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", bus.ErrInvalid, err)
	}
	if header != nil {
		req.Header = header
	}
	if d.cfg.Token != "" {
		req.Header.Set(headerToken, d.cfg.Token)
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", unanswered(err), orCause(ctx, err))
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return answer, nil // what is left of it is not looked at
	case err != nil:
		return nil, fmt.Errorf("%w: %w", bus.ErrNotConfirmed, orCause(ctx, err))
	}
	return nil, refused(resp.StatusCode, answer)
}
