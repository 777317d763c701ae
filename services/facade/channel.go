package facade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/cloudevents"
)

// A channel is how the app is spoken to: over HTTP or gRPC.
type channel interface {
	receiver
	// subscriptions asks the app what it subscribes to.
	subscriptions(ctx context.Context) ([]Subscription, error)
	// invoke passes a call on to the app. The method is its path, escaped and without the first slash.
	invoke(w http.ResponseWriter, r *http.Request, method string)
	close()
}

// A receiver takes events: the app, or one of its streams.
type receiver interface {
	// deliver hands over an event, and reads what is said to it. The error says why it was not a success.
	deliver(ctx context.Context, d *delivery, path string, r *bus.Received, e event) (verdict, error)
}

// errUnreached says that an event never left for the app: nobody listens there, or its name is not known, as while its container is replaced.
var errUnreached = errors.New("the app cannot be reached")

// httpChannel speaks HTTP with the app.
type httpChannel struct {
	s      *Service
	client *http.Client
}

func newHTTPChannel(s *Service) *httpChannel {
	return &httpChannel{s: s, client: &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 100, IdleConnTimeout: time.Minute, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (c *httpChannel) close() { c.client.CloseIdleConnections() }

// request is one to the app.
func (c *httpChannel) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+c.s.cfg.AppAddress+"/"+strings.TrimPrefix(path, "/"), body)
	if err != nil {
		return nil, fmt.Errorf("the app cannot be called at %q: %w", path, err)
	}
	request.Header.Set("User-Agent", "bannou")
	if c.s.cfg.AppToken != "" {
		request.Header.Set(headerToken, c.s.cfg.AppToken)
	}
	return request, nil
}

// subscriptions is GET /dapr/subscribe of the app. One that has no such path subscribes to nothing.
func (c *httpChannel) subscriptions(ctx context.Context) ([]Subscription, error) {
	request, err := c.request(ctx, http.MethodGet, "/dapr/subscribe", nil)
	if err != nil {
		return nil, err
	}
	response, err := c.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("the app does not answer at %s: %w", c.s.cfg.AppAddress, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, c.s.cfg.MaxBodyBytes))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the app's subscriptions: %w", err)
	case response.StatusCode == http.StatusNotFound, response.StatusCode == http.StatusNoContent:
		return nil, nil
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the app answered GET /dapr/subscribe with %s", response.Status)
	}
	return readSubscriptions(body)
}

// readSubscriptions reads the app's answer.
func readSubscriptions(body []byte) ([]Subscription, error) {
	var wire []struct {
		PubSub     string            `json:"pubsubname,case:ignore"`
		Topic      string            `json:"topic"`
		Route      string            `json:"route"`
		DeadLetter string            `json:"deadLetterTopic,case:ignore"`
		Metadata   map[string]string `json:"metadata"`
		Routes     struct {
			Rules []struct {
				Match string `json:"match"`
				Path  string `json:"path"`
			} `json:"rules"`
			Default string `json:"default"`
		} `json:"routes"`
		Bulk struct {
			Enabled bool `json:"enabled"`
		} `json:"bulkSubscribe,case:ignore"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return nil, fmt.Errorf("the app's answer to GET /dapr/subscribe is not a list of subscriptions: %w", err)
	}
	list := make([]Subscription, len(wire))
	for i, one := range wire {
		list[i] = Subscription{PubSub: one.PubSub, Topic: one.Topic, Default: one.Routes.Default, DeadLetterTopic: one.DeadLetter, Metadata: one.Metadata, Bulk: one.Bulk.Enabled}
		if list[i].Default == "" {
			list[i].Default = one.Route
		}
		for _, rule := range one.Routes.Rules {
			list[i].Rules = append(list[i].Rules, Rule{Match: rule.Match, Path: rule.Path})
		}
	}
	return list, nil
}

// deliver posts the event to the app.
func (c *httpChannel) deliver(ctx context.Context, d *delivery, path string, r *bus.Received, e event) (verdict, error) {
	request, err := c.request(ctx, http.MethodPost, path, bytes.NewReader(d.content(r, e)))
	if err != nil {
		return lost, err
	}
	request.Header.Set("Content-Type", cloudevents.ContentType)
	for _, name := range []string{bus.HeaderTraceParent, bus.HeaderTraceState} {
		if value := r.Headers[name]; value != "" {
			request.Header.Set(name, value)
		}
	}
	response, err := c.client.Do(request)
	if failed := (*net.OpError)(nil); errors.As(err, &failed) && failed.Op == "dial" {
		return retry, fmt.Errorf("%w: %w", errUnreached, err)
	}
	if err != nil {
		return retry, fmt.Errorf("the app could not be called: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	switch {
	case err != nil:
		return retry, fmt.Errorf("the app broke off its answer: %w", err)
	case response.StatusCode == http.StatusNotFound:
		return lost, fmt.Errorf("the app has nothing at %s", path)
	case response.StatusCode < 200 || response.StatusCode > 299:
		return retry, fmt.Errorf("the app answered %s", response.Status)
	}
	return read(body, d.wanted.Bulk)
}

// invoke passes the call on as it is.
func (c *httpChannel) invoke(w http.ResponseWriter, r *http.Request, method string) {
	(&httputil.ReverseProxy{
		Transport:     c.client.Transport,
		FlushInterval: -1,
		ErrorLog:      c.s.server.ErrorLog,
		Rewrite: func(p *httputil.ProxyRequest) {
			path, err := url.PathUnescape(method)
			if err != nil {
				path = method
			}
			p.Out.URL.Scheme, p.Out.URL.Host = "http", c.s.cfg.AppAddress
			p.Out.URL.Path, p.Out.URL.RawPath = "/"+path, "/"+method
			p.Out.Header["X-Forwarded-For"] = p.In.Header["X-Forwarded-For"]
			p.SetXForwarded()
			if c.s.cfg.AppToken != "" {
				p.Out.Header.Set(headerToken, c.s.cfg.AppToken)
			}
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			c.s.answerError(w, r, invokeRefusal(c.s.cfg.AppID, err))
		},
	}).ServeHTTP(w, r)
}
