package facade

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/cloudevents"
)

// A PubSub is a broker that the app may name.
type PubSub struct {
	// Bus carries the events.
	Bus *bus.Bus
	// Kind is what /v1.0/metadata says of it, such as pubsub.rabbitmq.
	Kind string
	// Group is the name that the app's instances share as subscribers. Default: the app-id.
	Group string
	// MayPublish and MaySubscribe are the topics that the app may use. nil: all but those that are Protected.
	MayPublish, MaySubscribe []string
	// Protected are topics that only an app uses which is named for them.
	Protected []string
}

// opaque is the content type of data that is not an event of the bus: no JSON object, or one whose eventId or timestamp is something else.
const opaque = "application/octet-stream"

// publish is POST and PUT /v1.0/publish/{pubsub}/{topic...}.
func (s *Service) publish(w http.ResponseWriter, r *http.Request) error {
	name, topic := r.PathValue("pubsub"), r.PathValue("topic")
	if _, _, err := s.pubsub(name, topic, false); err != nil {
		return err // before the body is read
	}
	data, err := s.body(w, r)
	if err != nil {
		return err
	}
	if err := s.publishOne(r.Context(), name, topic, outgoing{contentType: r.Header.Get("Content-Type"), data: data, metadata: metadata(r)}, traceOf(r.Header)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// An outgoing event is one as an app publishes it.
type outgoing struct {
	id          string // of an entry of several
	contentType string
	data        []byte
	metadata    map[string]string // names in lower case
}

// A traceContext is that of the request that publishes: traceparent and tracestate.
type traceContext struct{ parent, state string }

func traceOf(h http.Header) traceContext {
	return traceContext{h.Get("Traceparent"), h.Get("Tracestate")}
}

// publishOne publishes an event.
func (s *Service) publishOne(ctx context.Context, name, topic string, o outgoing, t traceContext) error {
	p, on, err := s.pubsub(name, topic, false)
	if err != nil {
		return err
	}
	e, options, err := s.newEvent(name, topic, o, t)
	if err != nil {
		return err
	}
	if err := send(ctx, p.Bus, on, e, options); err != nil {
		return publishRefusal(err, name, topic)
	}
	return nil
}

// newEvent is what an app publishes, in an envelope unless it asks for none.
func (s *Service) newEvent(name, topic string, o outgoing, t traceContext) (event, bus.PublishOptions, error) {
	raw, err := flag(o.metadata["rawpayload"])
	if err != nil {
		return event{}, bus.PublishOptions{}, refuse(http.StatusBadRequest, "ERR_PUBSUB_REQUEST_METADATA", "rawPayload: %s", err)
	}
	e := event{data: o.data}
	if !raw {
		if e, err = newEvent(s.cfg.AppID, name, topic, o.contentType, t.parent, t.state, o.data, o.metadata); err != nil {
			return event{}, bus.PublishOptions{}, err
		}
	}
	options, err := e.options(o.metadata)
	return e, options, err
}

func flag(value string) (bool, error) {
	if value == "" {
		return false, nil
	}
	return strconv.ParseBool(value)
}

// options are what the event has on the bus beside its data, with what the metadata asks for.
func (e event) options(m map[string]string) (bus.PublishOptions, error) {
	o := bus.PublishOptions{Headers: e.headers(), Type: e.text("type"), PartitionKey: m["partitionkey"]}
	if ttl := m["ttlinseconds"]; ttl != "" {
		n, err := strconv.ParseInt(ttl, 10, 32)
		if err != nil || n <= 0 {
			return o, refuse(http.StatusBadRequest, "ERR_PUBSUB_REQUEST_METADATA", "ttlInSeconds is '%s', and has to be a number of seconds, over 0", ttl)
		}
		o.Expiration = time.Duration(n) * time.Second
	}
	if n, err := strconv.ParseUint(m["priority"], 10, 8); err == nil {
		o.Priority = uint8(min(n, 9))
	}
	if trace := e.text("traceparent"); trace != "" {
		o.Headers[bus.HeaderTraceParent] = trace
	}
	return o, nil
}

// send publishes an event: its data is the body, all else are headers.
func send(ctx context.Context, b *bus.Bus, topic string, e event, o bus.PublishOptions) error {
	if jsontext.Value(e.data).Kind() == '{' {
		var own struct {
			EventID jsontext.Value `json:"eventId"`
		}
		if json.Unmarshal(e.data, &own) == nil && len(own.EventID) == 0 {
			o.MessageID = e.text("id")
		}
		p, err := b.Prepare(topic, e.data, o)
		if err == nil {
			if added := len(p.Body) - len(e.data); added > 0 {
				p.Options.Headers = maps.Clone(p.Options.Headers)
				p.Options.Headers[cloudevents.HeaderStamped] = strconv.Itoa(added)
			}
			return b.PublishPrepared(ctx, p)
		}
		if !errors.Is(err, bus.ErrInvalid) {
			return err
		}
	}
	o.ContentType, o.MessageID = opaque, e.text("id")
	_, err := b.PublishRaw(ctx, topic, e.data, o)
	return err
}

func publishRefusal(err error, name, topic string) error {
	status := http.StatusInternalServerError
	if errors.Is(err, bus.ErrInvalid) {
		status = http.StatusBadRequest
	}
	return refuse(status, "ERR_PUBSUB_PUBLISH_MESSAGE", "error when publishing to topic %s in pubsub %s: %s", topic, name, err)
}

// A bulkEntry is one event of a bulk publish. Dapr's API calls its name entryId, the JavaScript SDK entryID.
type bulkEntry struct {
	EntryID     string            `json:"entryId,case:ignore"`
	Event       jsontext.Value    `json:"event"`
	ContentType string            `json:"contentType"`
	Metadata    map[string]string `json:"metadata"`
}

type failedEntry struct {
	EntryID string `json:"entryId"`
	Error   string `json:"error"`
}

// bulkPublish is POST and PUT /v1.0-alpha1/publish/bulk/{pubsub}/{topic...}. Entries are sent at once; those that failed are named.
func (s *Service) bulkPublish(w http.ResponseWriter, r *http.Request) error {
	name, topic := r.PathValue("pubsub"), r.PathValue("topic")
	if _, _, err := s.pubsub(name, topic, false); err != nil {
		return err
	}
	var entries []bulkEntry
	if err := s.decode(w, r, &entries); err != nil {
		return err
	}
	request := metadata(r)
	events := make([]outgoing, len(entries))
	for i, entry := range entries {
		data, err := entry.bytes()
		if err != nil {
			return err
		}
		events[i] = outgoing{id: entry.EntryID, contentType: entry.ContentType, data: data, metadata: over(request, entry.Metadata)}
	}
	failed, err := s.publishMany(r.Context(), name, topic, events, traceOf(r.Header))
	if err != nil {
		return err
	}
	if len(failed) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	answerJSON(w, http.StatusInternalServerError, struct {
		Failed    []failedEntry `json:"failedEntries"`
		ErrorCode string        `json:"errorCode"`
	}{failed, "ERR_PUBSUB_PUBLISH_MESSAGE"})
	return nil
}

// publishMany publishes events at once, and names those that failed. One that cannot be published at all is an error for all of them.
func (s *Service) publishMany(ctx context.Context, name, topic string, list []outgoing, t traceContext) ([]failedEntry, error) {
	p, on, err := s.pubsub(name, topic, false)
	if err != nil {
		return nil, err
	}
	events, options := make([]event, len(list)), make([]bus.PublishOptions, len(list))
	seen := map[string]bool{}
	for i, o := range list {
		if o.id == "" || seen[o.id] {
			return nil, refuse(http.StatusBadRequest, "ERR_PUBSUB_EVENTS_SER", "entryId is duplicated or not present for entry")
		}
		seen[o.id] = true
		if events[i], options[i], err = s.newEvent(name, topic, o, t); err != nil {
			return nil, err
		}
	}
	failures := make([]error, len(list))
	var wait sync.WaitGroup
	free := make(chan struct{}, bulkAtOnce)
	for i := range list {
		free <- struct{}{}
		wait.Go(func() {
			failures[i] = send(ctx, p.Bus, on, events[i], options[i])
			<-free
		})
	}
	wait.Wait()
	var failed []failedEntry
	for i, err := range failures {
		if err != nil {
			failed = append(failed, failedEntry{EntryID: list[i].id, Error: err.Error()})
		}
	}
	return failed, nil
}

// bulkAtOnce is how many events of one bulk publish are under way at a time.
const bulkAtOnce = 256

// bytes are the event's data: JSON as it is written, a string's content otherwise, and for binary what its base64 says.
func (b bulkEntry) bytes() ([]byte, error) {
	if cloudevents.IsJSON(b.ContentType) {
		return b.Event, nil
	}
	var text string
	if err := json.Unmarshal(b.Event, &text); err != nil {
		if b.ContentType == "" || strings.HasPrefix(b.ContentType, "text/") {
			return b.Event, nil
		}
		return nil, malformed("entry %s: the event is to be a string, as its content type says", b.EntryID)
	}
	if !cloudevents.IsBytes(b.ContentType) {
		return []byte(text), nil
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "ERR_PUBSUB_EVENTS_SER", "entry %s: the event is not in base64, as its content type asks for", b.EntryID)
	}
	return data, nil
}
