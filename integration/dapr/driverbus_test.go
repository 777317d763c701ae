package dapr_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/bustest"
	"github.com/bannou-mesh/bannou/pkg/bus/daprbus"
)

// The driver over a sidecar is held to the suite of the native ones, on each kind of component, but for the cases that are declared as missing.
func TestBusDriver(t *testing.T) {
	var names []string
	var features []bustest.Features
	for _, c := range brokersOfDapr(t) {
		kept := bustest.Features{Missing: c.missing}
		names, features = append(names, "Dapr's "+c.kind), append(features, kept)
		t.Run(c.kind, func(t *testing.T) {
			bustest.Run(t, func(t testing.TB) bustest.Setup {
				return bustest.Setup{Node: func(t testing.TB) bus.Driver { return newDaprBus(t, c.component) }}
			}, kept)
		})
	}
	if *driversPage != "" && !t.Failed() {
		writeBetween(t, *driversPage, "bus", bustest.Table(names, features))
	}
}

// A brokerOfDapr is a kind of Dapr's components for events, one of it, and the cases that it cannot pass.
type brokerOfDapr struct {
	kind, component string
	missing         map[string]string
}

func brokersOfDapr(t *testing.T) []brokerOfDapr {
	return []brokerOfDapr{
		{"pubsub.redis", redisComponent("bannou-pubsub", "pubsub.redis", servers.Redis(t)), missingOnRedisBus()},
		{"pubsub.rabbitmq", losingNothing("bannou-pubsub", servers.RabbitMQ(t)), missingOnBus()},
	}
}

// losingNothing is Dapr's component of RabbitMQ with the settings with which it loses nothing; none is its default.
func losingNothing(name string, r *servers.RabbitServer) string {
	return component(name, "pubsub.rabbitmq", "connectionString", r.URL, "durable", "true", "deletedWhenUnused", "false",
		"requeueInFailure", "true", "deliveryMode", "2", "publisherConfirm", "true", "prefetchCount", "10")
}

// A lateSidecar is a driver whose daprd starts when it is needed: when the bus runs and asks whether it is ready, or publishes. So it hears of all handlers that
// were registered before.
type lateSidecar struct {
	*daprbus.Driver
	start     func()
	transport http.RoundTripper
}

func (l *lateSidecar) Ready(ctx context.Context) error {
	l.start()
	return l.Driver.Ready(ctx)
}

func newDaprBus(t testing.TB, pubsub string) bus.Driver {
	t.Helper()
	servers.NeedDaprd(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &lateSidecar{}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { l.Handler(nil).ServeHTTP(w, r) })}
	at := make(chan *url.URL, 1)
	l.start = sync.OnceFunc(func() {
		go func() { _ = server.Serve(listener) }()
		_, port, err := net.SplitHostPort(listener.Addr().String())
		require.NoError(t, err)
		number, err := strconv.Atoi(port)
		require.NoError(t, err)
		u, err := url.Parse(servers.NewDaprd(t, servers.DaprdOptions{AppPort: number, Resources: []string{pubsub}}).URL)
		require.NoError(t, err)
		at <- u
	})
	l.transport = &elsewhere{start: l.start, at: at}
	l.Driver, err = daprbus.New(daprbus.Config{Endpoint: "http://sidecar:3500", Transport: l.transport})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, l.Close(context.Background()))
		_ = server.Close()
		_ = listener.Close()
	})
	return l
}

// elsewhere sends requests to the sidecar once it is known where that is.
type elsewhere struct {
	start func()
	at    chan *url.URL
}

func (e *elsewhere) RoundTrip(r *http.Request) (*http.Response, error) {
	e.start()
	u := <-e.at
	e.at <- u
	out := r.Clone(r.Context())
	out.URL.Host = u.Host
	return http.DefaultTransport.RoundTrip(out)
}

// Why the driver does not pass cases of the suite.
const (
	asItsOwnForm = "the sidecar writes the JSON anew, digit for digit: blanks are its own"
	noReturn     = "Dapr does not tell whether anybody is subscribed; bus.ErrUnsupported"
	onlyShared   = "the instances of an app are one subscriber, and the case has a queue of an instance's own; bus.ErrUnsupported"
	onlyAtStart  = "daprd asks for subscriptions once, when it starts; a later one is bus.ErrUnsupported"
	onlyOneGroup = "the group is the sidecar's app: those of one app share its events, whatever their groups are called"
	noLetters    = "dead letters are a topic like others there, and cannot be read or replayed as letters; bus.ErrUnsupported"
	noPatterns   = "Dapr has no patterns of topics; bus.ErrUnsupported"
	noQueues     = "Dapr shows nothing of what waits, and brings an event to no queue alone; bus.ErrUnsupported"
	noExchanges  = "Dapr has no exchanges beside its component's; bus.ErrUnsupported"
	answered     = "what an instance gives back comes again when the component brings it: a minute later"
)

// missingOnRedisBus are the cases that pubsub.redis cannot pass.
func missingOnRedisBus() map[string]string {
	all := missingOnBus()
	all["OneNodeClosesTheOthersGoOn"] = answered
	return all
}

// missingOnBus are the cases of the suite that Dapr cannot pass on any broker, by reason. What a failing handler comes to is shown by TestBusDriverRetriesAndBuries.
func missingOnBus() map[string]string {
	byReason := map[string][]string{
		asItsOwnForm: {"RawJSONIsStamped"},
		noReturn:     {"MandatoryIsRefusedWhereNobodyListens", "ManyUnderWayKeepTheirOrder"},
		onlyShared:   {"SubscriptionBeginsWhenMade", "ClosedSubscriptionLeavesNothing", "ManySubscriptionsOnOneTopic", "CloseLetsHandlersFinish", "CloseGivesBackWhatIsUnfinished", "ClosedBusSaysSo", "DriverKeepsExclusiveQueuesToOne", "PlainHandlerOnTheRouter", "PlainHandlerIsDeadLettered", "FailingHandlerIsRetriedAloneAndDeadLettered", "RetryThatSucceedsEndsIt", "PostponedIsNotCounted", "FailuresAreTold", "PermanentIsDeadLetteredAtOnce", "LargestHeadersAreDeadLettered", "UndecodableIsDeadLetteredAtOnce", "PanicIsAFailure", "TimeoutIsAFailure", "NoDeadLetterDrops", "AutoAckIsAtMostOnce", "DynamicSubscriptionFailsTheSame"},
		onlyAtStart:  {"CloseEndsWithABacklog", "DurableQueueKeepsWhileNobodyReads", "DurableSubscriptionIsResumed", "ExpiringSubscriptionWaitsForAWhile", "GroupIsSharedAcrossNodes", "HandlerAddedWhileRunning", "DriverSettlesOnce", "DriverBoundsTheUnsettled"},
		onlyOneGroup: {"EachGroupGetsACopy"},
		noLetters:    {"LettersStayUntilAcknowledged", "LettersHaveOneReader", "ReplayReachesTheFailedOneAlone", "ReplayKeepsLettersOfQueuesThatAreGone", "LettersAreListedByFilterAndPage", "DiscardRemovesWhatMatchesAlone"},
		noPatterns:   {"PatternOfOneSession", "HashMatchesAnyDepth"},
		noQueues:     {"TopicsAreListedWithCounts", "DriverRetriesInOneQueueAlone", "DriverDeletesQueues", "RedeliverReachesOneQueueAlone", "CloseGivesBackWhatIsPrefetched"},
		noExchanges:  {"ForwardKeepsAllButTheExchange", "ForwardEndsWhereItBegan"},
	}
	all := map[string]string{}
	for why, cases := range byReason {
		for _, c := range cases {
			all[c] = why
		}
	}
	return all
}

// A handler that fails is called again after the delay, while the sidecar waits; what is given up goes to the topic of dead letters, with its reason and its body to
// the digit. An event of an app of Dapr comes flat, with its numbers.
func TestBusDriverRetriesAndBuries(t *testing.T) {
	for _, c := range brokersOfDapr(t) {
		t.Run(c.kind, func(t *testing.T) { retriesAndBuries(t, newDaprBus(t, c.component)) })
	}
}

func retriesAndBuries(t *testing.T, driver bus.Driver) {
	b, err := bus.New(driver, bus.Config{AppID: "shop", RetryMaxAttempts: 2, RetryDelay: 20 * time.Millisecond, ImmediateRetries: -1})
	require.NoError(t, err)
	got, buried := make(chan *bus.Received, 10), make(chan *bus.Received, 10)
	require.NoError(t, b.HandleRaw("order.placed", "ship", func(_ context.Context, r *bus.Received) error {
		got <- r
		if strings.Contains(string(r.Body), "broken") {
			return errors.New("no stock")
		}
		return nil
	}, bus.SubscriptionOptions{}))
	require.NoError(t, b.HandleRaw("bannou-dlx", "bury", func(_ context.Context, r *bus.Received) error { buried <- r; return nil }, bus.SubscriptionOptions{}))
	ended := make(chan error, 1)
	go func() { ended <- b.Run(context.Background()) }()
	t.Cleanup(func() {
		require.NoError(t, b.Close(context.Background()))
		require.NoError(t, <-ended)
	})
	<-b.Running()
	require.Eventually(t, func() bool { return b.Ready(t.Context()) == nil }, wait, 20*time.Millisecond)

	id, err := b.PublishRaw(t.Context(), "order.placed", []byte(`{"state":"broken","n":9007199254740993}`), bus.PublishOptions{CorrelationID: "c-1"})
	require.NoError(t, err)
	for range 3 { // once, and two redeliveries
		r := next(t, got)
		require.Equal(t, id, r.MessageID)
		require.Equal(t, "c-1", r.CorrelationID)
	}
	letter := next(t, buried)
	require.Contains(t, string(letter.Body), `"n":9007199254740993`)
	require.Contains(t, letter.Headers[bus.HeaderException], "no stock")
	require.Equal(t, "order.placed", letter.Headers[bus.HeaderOriginalTopic])
	require.Empty(t, got, "it is not tried again")

	// Another app of Dapr publishes what knows nothing of events here.
	sidecar := driver.(*lateSidecar)
	_, err = sidecar.raw(t.Context(), "/v1.0/publish/bannou-pubsub/order.placed", `{"from":"dapr","n":9007199254740993}`)
	require.NoError(t, err)
	r := next(t, got)
	require.Contains(t, string(r.Body), `"n":9007199254740993`)
	require.Contains(t, string(r.Body), `"eventId":"`+r.MessageID+`"`)

	// What Dapr cannot do is said, and not left to be found out.
	_, err = b.SubscribeRaw(t.Context(), "order.#", func(context.Context, *bus.Received) error { return nil }, bus.SubscriptionOptions{Group: "all"})
	require.ErrorIs(t, err, bus.ErrUnsupported)
	_, err = b.SubscribeRaw(t.Context(), "order.late", func(context.Context, *bus.Received) error { return nil }, bus.SubscriptionOptions{Group: "late"})
	require.ErrorIs(t, err, bus.ErrUnsupported)
	require.ErrorContains(t, err, "daprd asks for subscriptions when it starts")
	_, err = b.SubscribeRaw(t.Context(), "order.placed", func(context.Context, *bus.Received) error { return nil }, bus.SubscriptionOptions{})
	require.ErrorIs(t, err, bus.ErrUnsupported)
}

// next waits for what must come.
func next(t *testing.T, from <-chan *bus.Received) *bus.Received {
	t.Helper()
	select {
	case r := <-from:
		return r
	case <-time.After(wait):
		t.Fatal("nothing came")
		return nil
	}
}

// raw publishes as another app would.
func (l *lateSidecar) raw(ctx context.Context, path, body string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sidecar"+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := l.transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}
