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
)

// A PubSub is a broker that the app may name.
type PubSub struct {
	// Bus carries the events.
	Bus *bus.Bus
	// Kind is what /v1.0/metadata says of it, such as pubsub.rabbitmq.
	Kind string
	// Group is the name that the app's instances share as subscribers. Default: the app-id.
	Group string
}

// opaque is the content type of data that is not an event of the bus: no JSON object, or one whose eventId or timestamp is something else.
const opaque = "application/octet-stream"

// publish is POST and PUT /v1.0/publish/{pubsub}/{topic...}.
func (s *Service) publish(w http.ResponseWriter, r *http.Request) error {
	name, topic := r.PathValue("pubsub"), r.PathValue("topic")
	p, on, err := s.pubsub(name, topic, false)
	if err != nil {
		return err
	}
	data, err := s.body(w, r)
	if err != nil {
		return err
	}
	m := metadata(r)
	e, err := s.newEvent(r, name, topic, r.Header.Get("Content-Type"), data, m)
	if err != nil {
		return err
	}
	if err := send(r.Context(), p.Bus, on, e, e.options(m)); err != nil {
		return publishRefusal(err, name, topic)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// newEvent is what an app publishes, in an envelope unless it asks for none.
func (s *Service) newEvent(r *http.Request, name, topic, contentType string, data []byte, m map[string]string) (event, error) {
	if raw, err := flag(m["rawpayload"]); err != nil {
		return event{}, refuse(http.StatusBadRequest, "ERR_PUBSUB_REQUEST_METADATA", "rawPayload: %s", err)
	} else if raw {
		return event{data: data}, nil
	}
	return newEvent(s.cfg.AppID, name, topic, contentType, r.Header.Get("Traceparent"), r.Header.Get("Tracestate"), data, m)
}

func flag(value string) (bool, error) {
	if value == "" {
		return false, nil
	}
	return strconv.ParseBool(value)
}

// options are what the event has on the bus beside its data, with what the metadata asks for.
func (e event) options(m map[string]string) bus.PublishOptions {
	o := bus.PublishOptions{Headers: e.headers(), Type: e.text("type"), PartitionKey: m["partitionkey"]}
	if n, err := strconv.ParseInt(m["ttlinseconds"], 10, 32); err == nil && n > 0 {
		o.Expiration = time.Duration(n) * time.Second
	}
	if n, err := strconv.ParseUint(m["priority"], 10, 8); err == nil {
		o.Priority = uint8(min(n, 9))
	}
	if trace := e.text("traceparent"); trace != "" {
		o.Headers[bus.HeaderTraceParent] = trace
	}
	return o
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
				p.Options.Headers[headerStamped] = strconv.Itoa(added)
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
	p, on, err := s.pubsub(name, topic, false)
	if err != nil {
		return err
	}
	var entries []bulkEntry
	if err := s.decode(w, r, &entries); err != nil {
		return err
	}
	request := metadata(r)
	events := make([]event, len(entries))
	seen := map[string]bool{}
	for i, entry := range entries {
		if entry.EntryID == "" || seen[entry.EntryID] {
			return refuse(http.StatusBadRequest, "ERR_PUBSUB_EVENTS_SER", "entryId is duplicated or not present for entry")
		}
		seen[entry.EntryID] = true
		data, err := entry.bytes()
		if err != nil {
			return err
		}
		if events[i], err = s.newEvent(r, name, topic, entry.ContentType, data, over(request, entry.Metadata)); err != nil {
			return err
		}
	}
	failures := make([]error, len(entries))
	var wait sync.WaitGroup
	free := make(chan struct{}, bulkAtOnce)
	for i := range entries {
		free <- struct{}{}
		wait.Go(func() {
			failures[i] = send(r.Context(), p.Bus, on, events[i], events[i].options(over(request, entries[i].Metadata)))
			<-free
		})
	}
	wait.Wait()
	var failed []failedEntry
	for i, err := range failures {
		if err != nil {
			failed = append(failed, failedEntry{EntryID: entries[i].EntryID, Error: err.Error()})
		}
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

// bulkAtOnce is how many events of one bulk publish are under way at a time.
const bulkAtOnce = 256

// bytes are the event's data: JSON as it is written, a string's content otherwise, and for binary what its base64 says.
func (b bulkEntry) bytes() ([]byte, error) {
	if isJSON(b.ContentType) {
		return b.Event, nil
	}
	var text string
	if err := json.Unmarshal(b.Event, &text); err != nil {
		if b.ContentType == "" || strings.HasPrefix(b.ContentType, "text/") {
			return b.Event, nil
		}
		return nil, malformed("entry %s: the event is to be a string, as its content type says", b.EntryID)
	}
	if !isBinary(b.ContentType) {
		return []byte(text), nil
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "ERR_PUBSUB_EVENTS_SER", "entry %s: the event is not in base64, as its content type asks for", b.EntryID)
	}
	return data, nil
}
