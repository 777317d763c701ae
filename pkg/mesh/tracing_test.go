package mesh_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// spans keep what a client tells of its calls.
type spans struct {
	noop.TracerProvider
	mu   sync.Mutex
	made []*keptSpan
}

func (s *spans) Tracer(string, ...trace.TracerOption) trace.Tracer { return tracerOf{spans: s} }

type tracerOf struct {
	noop.Tracer
	spans *spans
}

func (t tracerOf) Start(ctx context.Context, name string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	span := &keptSpan{name: name, attributes: map[attribute.Key]any{}}
	t.spans.mu.Lock()
	defer t.spans.mu.Unlock()
	t.spans.made = append(t.spans.made, span)
	return trace.ContextWithSpan(ctx, span), span
}

type keptSpan struct {
	noop.Span
	name       string
	attributes map[attribute.Key]any
	events     []map[attribute.Key]any
	status     codes.Code
	ended      bool
}

func (s *keptSpan) IsRecording() bool                   { return true }
func (s *keptSpan) End(...trace.SpanEndOption)          { s.ended = true }
func (s *keptSpan) SetStatus(code codes.Code, _ string) { s.status = code }

func (s *keptSpan) SetAttributes(attributes ...attribute.KeyValue) {
	for _, a := range attributes {
		s.attributes[a.Key] = a.Value.AsInterface()
	}
}

func (s *keptSpan) AddEvent(name string, options ...trace.EventOption) {
	event := map[attribute.Key]any{"name": name}
	config := trace.NewEventConfig(options...)
	for _, a := range config.Attributes() {
		event[a.Key] = a.Value.AsInterface()
	}
	s.events = append(s.events, event)
}

// A trace tells of one call once, however many attempts it took, and why there were more than one.
func TestASpanTellsOfFurtherAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &spans{}
		f := failing(503)
		client := newFleet(t, 3, mesh.ClientConfig{TracerProvider: s}, f)
		resp, err := client.Do(t.Context(), "app", request("GET", "/x", nil))
		require.NoError(t, err)
		resp.Body.Close()
		require.Len(t, s.made, 1)
		span := s.made[0]
		assert.Equal(t, "GET app", span.name)
		assert.True(t, span.ended)
		assert.Equal(t, codes.Error, span.status)
		assert.Equal(t, int64(2), span.attributes["http.request.resend_count"])
		assert.Equal(t, int64(503), span.attributes["http.response.status_code"])
		require.Len(t, span.events, 2)
		assert.Equal(t, "retry", span.events[1]["name"])
		assert.Equal(t, int64(2), span.events[1]["retry"])
		assert.Equal(t, "HTTP 503", span.events[1]["after"])

		f.answer = failing(200).answer
		get(t, client, "app", "/x")
		require.Len(t, s.made, 2)
		assert.NotContains(t, s.made[1].attributes, attribute.Key("http.request.resend_count"))
		assert.Empty(t, s.made[1].events)
	})
}
