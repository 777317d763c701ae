package incident_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/incident"
	"github.com/bannou-mesh/bannou/services/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errFire = errors.New("the database is on fire")

// outlet keeps what was published.
type outlet struct {
	mu     sync.Mutex
	away   bool
	events []events.ServiceErrorEvent
}

func (o *outlet) Publish(_ context.Context, topic string, e bus.Event) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if topic != events.TopicServiceError {
		return "", fmt.Errorf("published to %s", topic)
	}
	if o.away {
		return "", bus.ErrUnavailable
	}
	o.events = append(o.events, *e.(*events.ServiceErrorEvent))
	return "", nil
}

// taken returns what was published since it was last asked.
func (o *outlet) taken() []events.ServiceErrorEvent {
	o.mu.Lock()
	defer o.mu.Unlock()
	taken := o.events
	o.events = nil
	return taken
}

// run starts a reporter in a bubble; stop ends it.
func run(t *testing.T, to *outlet) (r *incident.Reporter, stop func()) {
	t.Helper()
	r, err := incident.New(incident.Config{AppID: "shop", InstanceID: "shop-1", Paths: map[string]string{"orchestrator": "mesh"}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.Run(ctx, to) }()
	return r, func() { cancel(); <-ended }
}

func letter(topic, id string) bus.Failure {
	return bus.Failure{Kind: bus.FailureDeadLettered, Service: "orders", Queue: topic + ".shop.bill", Topic: topic, MessageID: id,
		CorrelationID: "talk", Reason: bus.DiscardMaxRetries, Err: errFire}
}

// The first is told at once; the many that follow are told as one when the window ends, and all are counted.
func TestIncidentsOfOneKeyAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var to outlet
		r, stop := run(t, &to)
		begin := time.Now()
		traced := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{1, 2, 3}, SpanID: trace.SpanID{1}}))
		r.EventFailed(traced, letter("order.placed", "first"))
		synctest.Wait()
		got := to.taken()
		require.Len(t, got, 1)
		require.Equal(t, events.ServiceErrorEvent{
			ServiceName: "orders", AppID: "shop", InstanceID: "shop-1", Kind: events.ServiceErrorKindDeadLetter,
			Operation: "order.placed.shop.bill", Code: "max-retries-exceeded", Message: errFire.Error(), Occurrences: 1,
			FirstSeenAt: begin.UTC(), LastSeenAt: begin.UTC(), Topic: "order.placed", MessageID: "first", CorrelationID: "talk",
			TraceID: "01020300000000000000000000000000",
		}, got[0])

		time.Sleep(10 * time.Second) //nolint:forbidigo // the bubble's time
		for i := range 99 {
			r.EventFailed(t.Context(), letter("order.placed", fmt.Sprint(i)))
			time.Sleep(100 * time.Millisecond) //nolint:forbidigo // as above
		}
		synctest.Wait()
		require.Empty(t, to.taken())
		time.Sleep(time.Minute) //nolint:forbidigo // as above
		synctest.Wait()
		got = to.taken()
		require.Len(t, got, 1)
		require.EqualValues(t, 99, got[0].Occurrences)
		require.Equal(t, "98", got[0].MessageID, "the latest")
		require.Equal(t, begin.Add(10*time.Second).UTC(), got[0].FirstSeenAt)
		require.Equal(t, begin.Add(19*time.Second+800*time.Millisecond).UTC(), got[0].LastSeenAt)

		time.Sleep(time.Hour) //nolint:forbidigo // as above
		r.EventFailed(t.Context(), letter("order.placed", "later"))
		synctest.Wait()
		require.Len(t, to.taken(), 1, "after a quiet hour the first is told at once again")
		r.EventFailed(t.Context(), letter("order.placed", "last"))
		stop()
		require.Len(t, to.taken(), 1, "what was held back is told at the end")
	})
}

// Other services, operations and codes are told apart.
func TestKeysAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var to outlet
		r, stop := run(t, &to)
		defer stop()
		permanent := letter("order.placed", "2")
		permanent.Reason = bus.DiscardPermanent
		panicked := letter("order.placed", "3")
		panicked.Kind, panicked.Reason = bus.FailurePanicked, "panicked"
		unsent := letter("order.placed", "4")
		unsent.Queue = ""
		for _, f := range []bus.Failure{letter("order.placed", "1"), permanent, panicked, unsent, letter("order.paid", "5")} {
			r.EventFailed(t.Context(), f)
			r.EventFailed(t.Context(), f)
		}
		r.RequestFailed(t.Context(), host.Failure{Operation: "POST /state/save", RequestID: "r1", Code: problem.Internal, Detail: "it failed"})
		r.RequestFailed(t.Context(), host.Failure{Operation: "POST /orchestrator/config/set", RequestID: "r2", Code: problem.Internal, Detail: "it failed"})
		synctest.Wait()
		seen := map[string]string{}
		for _, e := range to.taken() {
			seen[e.ServiceName+" "+e.Operation+" "+e.Code] = string(e.Kind) + " " + e.CorrelationID
		}
		require.Equal(t, map[string]string{
			"orders order.placed.shop.bill max-retries-exceeded": "deadLetter talk",
			"orders order.placed.shop.bill permanent":            "deadLetter talk",
			"orders order.placed.shop.bill panicked":             "unhandled talk",
			"orders publish order.placed max-retries-exceeded":   "deadLetter talk",
			"orders order.paid.shop.bill max-retries-exceeded":   "deadLetter talk",
			"state POST /state/save internal":                    "unhandled r1",
			"mesh POST /orchestrator/config/set internal":        "unhandled r2",
		}, seen)
	})
}

// A reporter tells nothing of its own events, and does not repeat what it could not publish.
func TestReporterIsSilentAboutItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := outlet{away: true}
		r, stop := run(t, &to)
		defer stop()
		r.EventFailed(t.Context(), letter(events.TopicServiceError, "own"))
		r.EventFailed(t.Context(), letter("order.placed", "1"))
		synctest.Wait()
		to.mu.Lock()
		to.away = false
		to.mu.Unlock()
		time.Sleep(time.Hour) //nolint:forbidigo // the bubble's time
		synctest.Wait()
		require.Empty(t, to.taken())
	})
}

// However many keys there are and however long their texts, memory is bounded.
func TestReporterIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var to outlet
		r, stop := run(t, &to)
		defer stop()
		long := strings.Repeat("ä", 1000)
		for i := range 5000 {
			f := letter(fmt.Sprint("t", i), long)
			f.Err, f.Service = errors.New(long), long
			r.EventFailed(t.Context(), f)
		}
		synctest.Wait()
		got := to.taken()
		require.LessOrEqual(t, len(got), 1000)
		require.NotEmpty(t, got)
		require.Equal(t, strings.Repeat("ä", 512), got[0].Message)
		require.Equal(t, strings.Repeat("ä", 256), got[0].ServiceName)
	})
}
