package daprbus

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/cloudevents"
)

// What CloudEvents carry of a message beside their own attributes.
const (
	queryCorrelation = "correlation-id"
	queryPrefix      = "h." // of headers
	extension        = "bannouproperties"
	mostInQuery      = 1500 // bytes: the sidecar reads 4 KiB of head
	contentJSON      = "application/json"
	headerTrace      = "traceparent"
	headerTraceState = "tracestate"
)

// Publish implements bus.Driver. The sidecar's 204 is the confirmation, and worth what its component's is: RabbitMQ's waits for the broker with publisherConfirm.
func (d *Driver) Publish(ctx context.Context, m *bus.Message) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	topic := m.RoutingKey
	switch {
	case closed:
		return bus.ErrClosed
	case m.Exchange == d.cfg.DeadLetterExchange:
		topic = d.cfg.DeadLetterExchange
	case m.Exchange != "":
		return unsupported("Dapr has no exchanges beside its component's: " + m.Exchange)
	case m.Mandatory:
		return unsupported("Dapr does not tell whether anybody is subscribed")
	}
	query, contentType, body, err := d.envelope(m)
	if err != nil {
		return err
	}
	if m.Expiration > 0 {
		query.Set("metadata.ttlInSeconds", strconv.FormatInt(int64((m.Expiration+time.Second-1)/time.Second), 10))
	}
	path := "/v1.0/publish/" + url.PathEscape(d.cfg.PubSub) + "/" + url.PathEscape(topic) + "?" + query.Encode()
	_, err = d.do(ctx, http.MethodPost, path, http.Header{"Content-Type": {contentType}}, body)
	return err
}

// Begin implements bus.Driver. The sidecar keeps no order among requests, so each is made before the next is begun.
func (d *Driver) Begin(ctx context.Context, m *bus.Message) (confirm func() error) {
	err := d.Publish(ctx, m)
	return func() error { return err }
}

// envelope is a message as the sidecar is given it: JSON, of which it makes the envelope, or a CloudEvent of this driver's.
func (d *Driver) envelope(m *bus.Message) (query url.Values, contentType string, body []byte, err error) {
	properties := url.Values{}
	for name, value := range m.Headers {
		properties.Set(queryPrefix+name, value)
	}
	source := m.Headers[bus.HeaderSourceService]
	properties.Del(queryPrefix + bus.HeaderSourceService)
	if m.CorrelationID != "" {
		properties.Set(queryCorrelation, m.CorrelationID)
	}
	if m.Exchange == d.cfg.DeadLetterExchange {
		properties.Set("topic", m.RoutingKey)
	}
	query = url.Values{}
	if media, _, _ := strings.Cut(m.ContentType, ";"); media == contentJSON && jsontext.Value(m.Body).Kind() == '{' && len(properties.Encode()) <= mostInQuery {
		if len(properties) > 0 {
			source += "?" + properties.Encode()
		}
		for name, value := range map[string]string{"id": m.ID, "type": m.Type, "source": source, "traceparent": m.Headers[headerTrace], "tracestate": m.Headers[headerTraceState]} {
			if value != "" {
				query.Set("metadata.cloudevent."+name, value)
			}
		}
		return query, contentJSON, m.Body, nil
	}
	body, err = json.Marshal(map[string]string{
		"specversion": "1.0", "id": m.ID, "type": orEmpty(m.Type, "event"), "source": orEmpty(source, "bannou"), "time": m.Timestamp.UTC().Format(time.RFC3339Nano),
		"datacontenttype": m.ContentType, extension: properties.Encode(), "data_base64": base64.StdEncoding.EncodeToString(m.Body),
	})
	if err != nil {
		return nil, "", nil, fmt.Errorf("%w: %w", bus.ErrInvalid, err)
	}
	return query, cloudevents.ContentType, body, nil
}

func orEmpty(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

// An event is a CloudEvent as it comes.
type event struct {
	ID              string         `json:"id"`
	Type            string         `json:"type"`
	Source          string         `json:"source"`
	Time            string         `json:"time"`
	DataContentType string         `json:"datacontenttype"`
	TraceParent     string         `json:"traceparent"`
	TraceState      string         `json:"tracestate"`
	Data            jsontext.Value `json:"data"`
	DataBase64      *string        `json:"data_base64"`
	Properties      *string        `json:"bannouproperties"` // nil: of another app, or published as JSON
}

// message unwraps what came for a topic. What is no CloudEvent is passed on as it is, for its handlers to refuse. A dead letter tells its own topic.
func message(topic string, letters bool, body []byte) *bus.Message {
	m := &bus.Message{RoutingKey: topic, ContentType: cloudevents.ContentType, Body: body, Timestamp: time.Now().UTC(), Headers: map[string]string{}}
	var e event
	if json.Unmarshal(body, &e, jsontext.AllowDuplicateNames(true)) != nil || e.ID == "" {
		return m
	}
	m.ID, m.Type, m.ContentType = e.ID, e.Type, orEmpty(e.DataContentType, contentJSON)
	if at, err := time.Parse(time.RFC3339, e.Time); err == nil {
		m.Timestamp = at.UTC()
	}
	source, query, _ := strings.Cut(e.Source, "?")
	if e.Properties != nil {
		query = *e.Properties
	}
	properties, err := url.ParseQuery(query)
	if err != nil {
		properties, source = nil, e.Source
	}
	for name := range properties {
		if header, ok := strings.CutPrefix(name, queryPrefix); ok {
			m.Headers[header] = properties.Get(name)
		}
	}
	m.CorrelationID = properties.Get(queryCorrelation)
	if letters && properties.Has("topic") { // any app's source may have such a query
		m.RoutingKey = properties.Get("topic")
	}
	for _, h := range [][2]string{{bus.HeaderSourceService, source}, {headerTrace, e.TraceParent}, {headerTraceState, e.TraceState}} {
		if h[1] != "" {
			m.Headers[h[0]] = h[1]
		}
	}
	m.Body = e.data(m)
	return m
}

// data is the event's own, as it was published. A JSON object without an eventId, from an app that knows nothing of them, gets that of the message, which
// is a UUID: an id that another app made is unique to its source alone, and inboxes would take another's for the same event.
func (e *event) data(m *bus.Message) []byte {
	if e.Properties == nil { // else its id is one of the bus
		m.ID = cloudevents.Identity(e.Source, e.ID)
	}
	if e.DataBase64 != nil {
		if decoded, err := base64.StdEncoding.DecodeString(*e.DataBase64); err == nil {
			return decoded
		}
	}
	text := ""
	if media, _, _ := strings.Cut(e.DataContentType, ";"); media != contentJSON && !strings.HasSuffix(media, "+json") && media != "" && json.Unmarshal(e.Data, &text) == nil {
		return []byte(text)
	}
	if e.Data.Kind() != '{' {
		return e.Data
	}
	var has struct {
		EventID   jsontext.Value `json:"eventId"`
		Timestamp jsontext.Value `json:"timestamp"`
	}
	if json.Unmarshal(e.Data, &has, jsontext.AllowDuplicateNames(true)) != nil {
		return e.Data
	}
	var added []byte
	if has.EventID == nil {
		id, _ := json.Marshal(m.ID)
		added = append(append(append(added, `"eventId":`...), id...), ',')
	} else if own := ""; json.Unmarshal(has.EventID, &own) == nil && own != "" {
		m.ID = own
	}
	if has.Timestamp == nil {
		at, _ := json.Marshal(m.Timestamp)
		added = append(append(append(added, `"timestamp":`...), at...), ',')
	}
	if added == nil {
		return e.Data
	}
	rest := strings.TrimSpace(string(e.Data))[1:]
	if strings.TrimSpace(rest) == "}" {
		added = added[:len(added)-1]
	}
	return append(append([]byte{'{'}, added...), rest...)
}
