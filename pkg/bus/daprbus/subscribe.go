package daprbus

import (
	"context"
	"crypto/subtle"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/cloudevents"
)

// Subscribe implements bus.Driver. bus.ErrUnsupported: a pattern, a queue of this instance's own, or a topic that daprd did not hear of when it asked.
func (d *Driver) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
	if q.Name == "" || q.Prefetch < 1 || len(q.Bindings) == 0 {
		return nil, fmt.Errorf("%w: a queue needs a name, a topic and a prefetch of at least 1", bus.ErrInvalid)
	}
	var topics []string
	for _, b := range q.Bindings {
		topic := b.Pattern
		switch {
		case b.Exchange == d.cfg.DeadLetterExchange && b.Exchange != "":
			topic = d.cfg.DeadLetterExchange
		case b.Exchange != "":
			return nil, unsupported("Dapr has no exchanges beside its component's: " + b.Exchange)
		case strings.ContainsAny(topic, "*#"):
			return nil, unsupported("Dapr has no patterns of topics: subscribe to each, instead of " + topic)
		}
		topics = append(topics, topic)
	}
	if q.Exclusive {
		return nil, unsupported("all instances of an app are one subscriber to Dapr: give the subscription to " + strings.Join(topics, ", ") + " a group, or put it on a native broker")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, bus.ErrClosed
	}
	for _, topic := range topics {
		if d.asked != nil && !d.asked[topic] {
			return nil, unsupported("daprd asks for subscriptions when it starts, and " + topic + " was none then: register handlers before the bus runs, or restart daprd")
		}
	}
	c := newConsumer(d, q, topics)
	for _, topic := range topics {
		d.readers[topic] = append(d.readers[topic], c)
	}
	return c, nil
}

// forget removes a consumer.
func (d *Driver) forget(c *consumer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, topic := range c.topics {
		d.readers[topic] = slices.DeleteFunc(d.readers[topic], func(other *consumer) bool { return other == c })
	}
}

// routePrefix is where the sidecar brings events.
const routePrefix = "/dapr/events/"

// Handler serves what the sidecar asks of its app: the subscriptions, and the events that it brings. Everything else is next's; nil: 404. Serve it where daprd
// was told that the app listens, after all topics were subscribed to. With an AppToken, what comes without it is refused, next's too, but for GET /healthz, with
// which the sidecar shows no token; next does not see the token.
func (d *Driver) Handler(next http.Handler) http.Handler {
	if next == nil {
		next = http.NotFoundHandler()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		probe := r.Method == http.MethodGet && r.URL.Path == "/healthz"
		if d.cfg.AppToken != "" && !probe && subtle.ConstantTimeCompare([]byte(r.Header.Get(headerToken)), []byte(d.cfg.AppToken)) != 1 {
			http.Error(w, "the header dapr-api-token does not have the app's token", http.StatusUnauthorized)
			return
		}
		if !strings.HasPrefix(r.URL.Path, "/dapr/") {
			r.Header.Del(headerToken) // it is between the sidecar and this process, and next may pass headers on
			next.ServeHTTP(w, r)
			return
		}
		topic, brought := strings.CutPrefix(r.URL.Path, routePrefix)
		switch {
		case r.Method == http.MethodGet && r.URL.Path == "/dapr/subscribe":
			d.tell(w)
		case r.Method == http.MethodPost && brought && !isEnvelope(r):
			http.Error(w, "an event comes as "+cloudevents.ContentType, http.StatusUnsupportedMediaType)
		case r.Method == http.MethodPost && brought:
			d.deliver(w, r, topic)
		default:
			http.NotFound(w, r)
		}
	})
}

// isEnvelope reports whether a request brings what daprd brings. A page in a browser on this machine cannot send that here without being asked for leave first.
func isEnvelope(r *http.Request) bool {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && media == cloudevents.ContentType
}

// tell answers which topics are subscribed to.
func (d *Driver) tell(w http.ResponseWriter) {
	type subscription struct {
		PubSub string `json:"pubsubname"`
		Topic  string `json:"topic"`
		Route  string `json:"route"`
	}
	d.mu.Lock()
	list := []subscription{}
	d.asked, d.attached = map[string]bool{}, false
	for _, topic := range d.topics() {
		list = append(list, subscription{d.cfg.PubSub, topic, routePrefix + topic})
		d.asked[topic] = true
	}
	d.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.MarshalWrite(w, list)
}

// maxEvent bounds what is read of an event: base64 of the largest body, and its envelope.
const maxEvent = 32 << 20

// deliver gives an event to all who read its topic here, and answers when they have settled it.
func (d *Driver) deliver(w http.ResponseWriter, r *http.Request, topic string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEvent))
	if err != nil {
		d.cfg.Logger.Warn("an event could not be read", "topic", topic, "error", err)
		http.Error(w, "the event broke off, or is larger than this program takes", http.StatusBadRequest)
		return
	}
	d.mu.Lock()
	readers := slices.Clone(d.readers[topic])
	d.mu.Unlock()
	settled := make(chan bool, len(readers))
	for _, c := range readers {
		go c.give(r.Context(), message(topic, topic == d.cfg.DeadLetterExchange, body), settled)
	}
	handled := len(readers) > 0
	for range readers {
		handled = <-settled && handled
	}
	status := "SUCCESS"
	if !handled {
		status = "RETRY"
		d.cfg.Logger.Info("an event goes back to the sidecar", "topic", topic)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"status":"`+status+`"}`)
}
