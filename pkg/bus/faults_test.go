package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
)

// How long a test waits for what must come, and how often it looks.
const (
	wait = 10 * time.Second
	tick = time.Millisecond
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// away is a broker that can be taken away: while it is, calls wait for it until their contexts end, as a driver's do.
type away struct {
	*memorybus.Driver
	back       chan struct{} // closed: it is there
	noLetters  atomic.Int64  // so many dead letters it refuses
	noRetries  atomic.Int64  // so many delayed redeliveries it refuses
	refusals   atomic.Int64
	deadLetter string
}

func broker(t *testing.T, there bool) *away {
	d := &away{Driver: memorybus.New(memorybus.Config{}), back: make(chan struct{}), deadLetter: "bannou-dlx"}
	if there {
		close(d.back)
	}
	t.Cleanup(func() { require.NoError(t, d.Close(context.Background())) })
	return d
}

func (d *away) wait(ctx context.Context) error {
	select {
	case <-d.back:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", bus.ErrUnavailable, ctx.Err())
	}
}

func (d *away) Publish(ctx context.Context, m *bus.Message) error {
	if err := d.wait(ctx); err != nil {
		return err
	}
	if m.Exchange == d.deadLetter && d.noLetters.Add(-1) >= 0 {
		d.refusals.Add(1)
		return bus.ErrNotConfirmed
	}
	return d.Driver.Publish(ctx, m)
}

func (d *away) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) {
	if err := d.wait(ctx); err != nil {
		return nil, err
	}
	c, err := d.Driver.Subscribe(ctx, q)
	if err != nil {
		return nil, err
	}
	return &awayConsumer{Consumer: c, driver: d, out: pass(d, c)}, nil
}

func (d *away) Ready(ctx context.Context) error {
	select {
	case <-d.back:
		return nil
	default:
		return bus.ErrUnavailable
	}
}

type awayConsumer struct {
	bus.Consumer
	driver *away
	out    <-chan bus.Delivery
}

func (c *awayConsumer) Deliveries() <-chan bus.Delivery { return c.out }

func pass(d *away, c bus.Consumer) <-chan bus.Delivery {
	out := make(chan bus.Delivery)
	go func() {
		defer close(out)
		for x := range c.Deliveries() {
			out <- awayDelivery{x, d}
		}
	}()
	return out
}

type awayDelivery struct {
	bus.Delivery
	driver *away
}

func (d awayDelivery) Retry(ctx context.Context, delay time.Duration) error {
	if d.driver.noRetries.Add(-1) >= 0 {
		d.driver.refusals.Add(1)
		return bus.ErrNotConfirmed
	}
	return d.Delivery.Retry(ctx, delay)
}

func start(t *testing.T, d bus.Driver, cfg bus.Config) *bus.Bus {
	b, err := bus.New(d, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	return b
}

func run(t *testing.T, b *bus.Bus) {
	ended := make(chan error, 1)
	go func() { ended <- b.Run(context.Background()) }()
	t.Cleanup(func() {
		require.NoError(t, b.Close(context.Background()))
		require.NoError(t, <-ended)
	})
	<-b.Running()
}

// A service starts without its broker, says that it is not ready, and joins when the broker comes.
func TestBrokerIsAwayAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := broker(t, false)
		b := start(t, d, bus.Config{})
		handled := make(chan string, 10)
		note := func(_ context.Context, e *AccountCreated) error { handled <- e.AccountID; return nil }
		for i := range 5 {
			require.NoError(t, bus.Handle(b, "account.created", fmt.Sprintf("h-%d", i), note, bus.SubscriptionOptions{}))
		}
		begin := time.Now()
		run(t, b)
		require.LessOrEqual(t, time.Since(begin), 2*time.Second, "all queues are waited for side by side, not in turn")
		require.ErrorIs(t, b.Ready(t.Context()), bus.ErrUnavailable)

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin = time.Now()
		_, err := b.Publish(ctx, "account.created", &AccountCreated{})
		require.ErrorIs(t, err, bus.ErrUnavailable)
		require.Equal(t, 3*time.Second, time.Since(begin), "by the context's deadline")

		require.NoError(t, bus.Handle(b, "account.created", "late", note, bus.SubscriptionOptions{}), "also added while it is away")

		time.Sleep(10 * time.Minute) //nolint:forbidigo // the time of synctest: a long outage
		close(d.back)
		synctest.Wait()
		time.Sleep(time.Minute) //nolint:forbidigo // the longest pause between attempts
		require.NoError(t, b.Ready(t.Context()))
		_, err = b.Publish(t.Context(), "account.created", &AccountCreated{AccountID: "a-1"})
		require.NoError(t, err)
		for range 6 {
			require.Equal(t, "a-1", <-handled)
		}
	})
}

// A bus closes while it still waits for its broker.
func TestCloseWhileBrokerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, broker(t, false), bus.Config{})
		require.NoError(t, b.HandleRaw("a.b", "h", func(context.Context, *bus.Received) error { return nil }, bus.SubscriptionOptions{}))
		ended := make(chan error, 1)
		go func() { ended <- b.Run(context.Background()) }()
		synctest.Wait()
		begin := time.Now()
		require.NoError(t, b.Close(t.Context()))
		require.NoError(t, <-ended)
		require.Zero(t, time.Since(begin))
	})
}

// An event is acknowledged only when its dead letter is confirmed: while the exchange refuses, it comes again.
func TestDeadLetterIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := broker(t, true)
		d.noLetters.Store(3)
		b := start(t, d, bus.Config{})
		var calls atomic.Int64
		require.NoError(t, b.HandleRaw("a.b", "h", func(context.Context, *bus.Received) error {
			calls.Add(1)
			return bus.Permanent(errors.New("no"))
		}, bus.SubscriptionOptions{}))
		run(t, b)
		_, err := b.PublishRaw(t.Context(), "a.b", []byte(`{}`), bus.PublishOptions{})
		require.NoError(t, err)
		time.Sleep(time.Minute) //nolint:forbidigo // the time of synctest
		require.EqualValues(t, 4, calls.Load(), "three refusals, each followed by a redelivery after the delay")
		require.EqualValues(t, 1, waiting(t, d, memorybus.DeadLetterStore))
	})
}

// picky is a broker that takes no dead letter with more headers than so.
type picky struct {
	*memorybus.Driver
	most int
}

func (d *picky) Publish(ctx context.Context, m *bus.Message) error {
	size := 0
	for name, value := range m.Headers {
		size += len(name) + len(value)
	}
	if m.Exchange == "bannou-dlx" && size > d.most {
		return fmt.Errorf("%w: the headers have %d bytes", bus.ErrInvalid, size)
	}
	return d.Driver.Publish(ctx, m)
}

// A dead letter that the broker would never take goes without its largest headers. Where that does not help either, the
// event waits long: nothing is lost, and nothing repeats at once for ever.
func TestDeadLetterThatTheBrokerWouldNeverTake(t *testing.T) {
	for most, kept := range map[int]int64{40 << 10: 1, 0: 0} {
		synctest.Test(t, func(t *testing.T) {
			d := &picky{memorybus.New(memorybus.Config{}), most}
			t.Cleanup(func() { require.NoError(t, d.Close(context.Background())) })
			b := start(t, d, bus.Config{RetryDelay: 10 * time.Millisecond})
			var calls atomic.Int64
			require.NoError(t, b.HandleRaw("a.b", "h", func(context.Context, *bus.Received) error {
				calls.Add(1)
				return bus.Permanent(errors.New("no"))
			}, bus.SubscriptionOptions{}))
			run(t, b)
			headers := map[string]string{"small": "s", "large": strings.Repeat("x", 30<<10), "larger": strings.Repeat("x", 60<<10)}
			_, err := b.PublishRaw(t.Context(), "a.b", []byte(`{}`), bus.PublishOptions{Headers: headers})
			require.NoError(t, err)
			time.Sleep(50 * time.Minute) //nolint:forbidigo // the time of synctest
			require.EqualValues(t, 1, calls.Load())
			require.Equal(t, kept, waiting(t, d, memorybus.DeadLetterStore))
			time.Sleep(time.Hour) //nolint:forbidigo // the time of synctest
			require.Equal(t, 2-kept, calls.Load(), "it comes again where it is not kept")
			if kept == 0 {
				return
			}
			page, err := b.ListLetters(t.Context(), bus.LetterFilter{}, bus.LetterPage{})
			require.NoError(t, err)
			got := page.Letters[0].Headers
			require.Equal(t, "larger", got[bus.HeaderOmittedHeaders])
			require.NotContains(t, got, "larger")
			require.Len(t, got["large"], 30<<10)
			require.Equal(t, "s", got["small"])
		})
	}
}

// When not even a delayed redelivery is taken over, the event goes back to its queue as it is.
func TestRetryIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := broker(t, true)
		d.noRetries.Store(2)
		b := start(t, d, bus.Config{ImmediateRetries: -1, RetryMaxAttempts: 5})
		done := make(chan int, 1)
		var calls atomic.Int64
		require.NoError(t, b.HandleRaw("a.b", "h", func(_ context.Context, r *bus.Received) error {
			if calls.Add(1) <= 3 {
				return errors.New("not yet")
			}
			done <- r.Attempt
			return nil
		}, bus.SubscriptionOptions{}))
		run(t, b)
		_, err := b.PublishRaw(t.Context(), "a.b", []byte(`{}`), bus.PublishOptions{})
		require.NoError(t, err)
		require.Equal(t, 4, <-done)
		require.EqualValues(t, 2, d.refusals.Load())
	})
}

// A handler that heeds nothing cannot hold Close up beyond its context.
func TestCloseDoesNotWaitForDeafHandlers(t *testing.T) {
	leave := make(chan struct{})
	left := make(chan struct{}, 2)
	d := broker(t, true)
	b := start(t, d, bus.Config{CloseTimeout: 50 * time.Millisecond})
	entered := make(chan struct{}, 2)
	deaf := func(context.Context, *bus.Received) error {
		entered <- struct{}{}
		<-leave
		left <- struct{}{}
		return nil
	}
	require.NoError(t, b.HandleRaw("a.b", "static", deaf, bus.SubscriptionOptions{}))
	_, err := b.SubscribeRaw(t.Context(), "a.b", deaf, bus.SubscriptionOptions{Group: "dynamic", Durable: true})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	<-b.Running()
	_, err = b.PublishRaw(t.Context(), "a.b", []byte(`{}`), bus.PublishOptions{})
	require.NoError(t, err)
	<-entered
	<-entered
	cancel()
	require.ErrorIs(t, <-ended, context.DeadlineExceeded)
	require.EqualValues(t, 1, waiting(t, d, "a.b.bannou.static"), "given back")
	require.EqualValues(t, 1, waiting(t, d, "a.b.dynamic"), "given back")
	close(leave)
	<-left
	<-left
}

func waiting(t *testing.T, d bus.Driver, queue string) int64 {
	t.Helper()
	all, err := d.Queues(t.Context())
	require.NoError(t, err)
	for _, q := range all {
		if q.Name == queue {
			return q.Messages
		}
	}
	t.Fatalf("there is no queue %q", queue)
	return 0
}
