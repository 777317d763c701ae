package rabbitbus

import (
	"bytes"
	"context"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// No password is ever shown, well escaped or not, in an error, or in a log.
func TestSecretsAreRedacted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := "S3" + rapid.StringOfN(rapid.RuneFrom([]rune("abc:@/?#%[ ü\"&")), 1, 12, -1).Draw(t, "rest") + "cr3T"
		if rapid.Bool().Draw(t, "escaped") {
			secret = url.QueryEscape(secret)
		}
		raw := "amqp://user:" + secret + "@127.0.0.1:1/v?password=" + url.QueryEscape(secret)
		require.NotContains(t, redactURL(raw), "S3")
		require.NotContains(t, redactText("cannot parse "+raw, raw), secret)
		_, err := New(Config{URLs: []string{raw + " "}}) // white space is refused
		require.ErrorIs(t, err, bus.ErrInvalid)
		require.NotContains(t, err.Error(), "cr3T")
	})
	require.Equal(t, "amqp://user:***@host:5672/v", redactURL("amqp://user:pass@host:5672/v?x=y"))
	require.Equal(t, "amqp://host", redactURL("amqp://host"))
	require.Equal(t, "(not a URL)", redactURL("secret"))

	var log bytes.Buffer
	d, err := New(Config{URLs: []string{"amqp://user:S3cr3T@127.0.0.1:1/"}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	err = d.Publish(ctx, &bus.Message{RoutingKey: "x"})
	require.ErrorIs(t, err, bus.ErrUnavailable)
	require.NoError(t, d.Close(context.Background()))
	require.NotContains(t, err.Error()+log.String(), "S3cr3T")
	require.Contains(t, log.String(), "cannot connect to the broker")
}

func TestConfigurationIsChecked(t *testing.T) {
	for what, cfg := range map[string]Config{
		"no RabbitMQ URL": {},
		"scheme":          {URLs: []string{"http://host"}},
		"queue type":      {URLs: []string{"amqp://host"}, QueueType: "lazy"},
		"must differ":     {URLs: []string{"amqp://host"}, Exchange: "a", DeadLetterExchange: "a"},
		"ManagementURL":   {URLs: []string{"amqp://host"}, ManagementURL: "host:15672"},
	} {
		_, err := New(cfg)
		require.ErrorIs(t, err, bus.ErrInvalid)
		require.ErrorContains(t, err, what)
	}
}

// Pauses double up to the most, and none is shorter than half.
func TestBackoff(t *testing.T) {
	b := &backoff{first: time.Second, most: time.Minute}
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		got := b.pause()
		require.LessOrEqual(t, got, want*time.Second)
		require.GreaterOrEqual(t, got, want*time.Second/2)
	}
	b.reset()
	require.LessOrEqual(t, b.pause(), time.Second)
}

// Delays of any length need few queues, and never end early. They end no more than twice as late, but for milliseconds.
func TestDelayQueues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(1, int64(maxDelay)).Draw(t, "delay"))
		rounded := roundDelay(d)
		require.GreaterOrEqual(t, rounded, d)
		require.LessOrEqual(t, rounded, 5*d/2+time.Millisecond)
		require.Equal(t, rounded, roundDelay(rounded))
		q := bus.Queue{Name: rapid.StringN(1, -1, maxShortString).Draw(t, "queue"), Durable: rapid.Bool().Draw(t, "durable")}
		require.LessOrEqual(t, len(delayQueueName(q, rounded)), maxShortString)
	})
	require.Equal(t, maxDelay, roundDelay(2*maxDelay))
	require.True(t, slices.IsSorted(delaySteps()))
	require.Less(t, len(delaySteps()), 50)
	for _, usual := range []time.Duration{300 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second, time.Minute, time.Hour} {
		require.Equal(t, usual, roundDelay(usual))
	}
	billing := bus.Queue{Name: "orders.placed.bannou.billing", Durable: true}
	require.Equal(t, "orders.placed.bannou.billing.later.5000", delayQueueName(billing, roundDelay(5*time.Second)))
	billing.Durable = false
	require.Equal(t, "orders.placed.bannou.billing.delay.5000", delayQueueName(billing, roundDelay(5*time.Second)))
	long := strings.Repeat("q", maxShortString-1)
	require.NotEqual(t, delayQueueName(bus.Queue{Name: long + "a"}, time.Second), delayQueueName(bus.Queue{Name: long + "b"}, time.Second), "long names stay apart")
}

// A delay queue that is a quorum queue must not expire: RabbitMQ would remove it in use, with what is in it.
func TestDelayQueuesThatExpireAreClassic(t *testing.T) {
	for _, q := range []bus.Queue{{Name: "durable", Durable: true}, {Name: "client's", Durable: true, Expires: time.Hour}, {Name: "session's", Exclusive: true}} {
		args := newDelays(newTopology(&Config{})).args(q, time.Minute)
		_, expires := args[amqp.QueueTTLArg]
		require.Equal(t, args[amqp.QueueTypeArg] == string(Classic), expires, q.Name)
		require.Equal(t, q.Durable && q.Expires == 0, args[amqp.QueueTypeArg] == string(Quorum), q.Name)
	}
}

func TestDeadLetterKey(t *testing.T) {
	q := bus.Queue{Name: "q", Bindings: []bus.Binding{{Pattern: "orders.placed"}}}
	require.Equal(t, "dead-letter.orders.placed", deadLetterKey(q))
	q.Bindings[0].Pattern = "orders.#"
	require.Equal(t, "dead-letter.q", deadLetterKey(q))
}
