package rabbitbus

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// QueueType is the kind of RabbitMQ queue that durable subscriptions get.
type QueueType string

// The kinds of durable queue.
const (
	// Classic queues live on one node. While it is away nothing reaches them: what is mandatory is ErrUnroutable or not
	// confirmed, what is not is dropped by the broker, which confirms it all the same. Here they are declared with ten priorities, which costs a third of the rate of
	// consuming.
	Classic QueueType = "classic"
	// Quorum queues are replicated over a cluster's nodes and count redeliveries. They need RabbitMQ 3.10, and know no
	// priorities before 4.0. Measured on 3.10, one node on two cores, 1 KiB, 64 publishers: 30 000 confirmed messages a
	// second against 14 000 of classic ones, 36 000 consumed against 22 000 (14 500 with priorities); alone, a publish
	// takes 0.4 ms on both.
	//
	// RabbitMQ, up to 4.3 at least, writes down up to a second after a quorum queue was made which log is its own. A node
	// that is killed before that loses the queue's messages, confirmed ones included, unless other nodes have them. So
	// Subscribe waits 1.5 s when it makes one, and a message that is the first to be delayed waits too, before it is
	// taken off its queue. Nothing that this driver relies on is lost then, and with a cluster nothing else either. On
	// one node a queue that was younger comes back empty, up to 4.2 also without a leader, and a publish to it blocks
	// its channel: 65 s, then a nack, again and again. Deleting the queue mends that (rabbitmqctl delete_queue), or
	// rabbitmqctl eval "ra:trigger_election({'%2F_NAME', node()})." for queue NAME of the virtual host /.
	Quorum QueueType = "quorum"
)

// Config is where the broker is and how the driver uses it. Only URLs is required.
type Config struct {
	// URLs are the broker's addresses, amqp:// or amqps:// (TLS), with user, password and virtual host, as the RabbitMQ
	// URI specification has them: amqp://user:password@host:5672/vhost. Several are the nodes of one cluster: the first to
	// be tried is chosen at random, and when one dies the next is tried.
	URLs []string

	// Exchange is the durable topic exchange for messages that name none. Default "bannou".
	Exchange string
	// DeadLetterExchange is the durable topic exchange where expired messages go. A queue of its name and "-store"
	// keeps what is sent there under "dead-letter.#". Default "bannou-dlx".
	DeadLetterExchange string
	// QueueType is the kind of durable queues. Default Classic. An existing queue keeps its kind: to change this,
	// delete the queues first.
	QueueType QueueType

	// DaprDurable and DaprAutoDelete are how Dapr declares the exchange of a topic, the settings durable and deletedWhenUnused of its
	// component, for exchanges of Dapr's that are not there yet. Default: neither.
	DaprDurable, DaprAutoDelete bool
	// RetryDelay is the pause before connecting again. It doubles with each failure in a row up to MaxRetryDelay; up to
	// half of it is taken off at random, lest all programs return at once. Default 1 s.
	RetryDelay time.Duration
	// MaxRetryDelay bounds the pause. Default 60 s.
	MaxRetryDelay time.Duration
	// Heartbeat is how often an idle connection is probed, at least 1 s. A broker that is silent for three times as
	// long is taken for dead. A heartbeat in a URL wins. Default 10 s.
	Heartbeat time.Duration
	// DialTimeout bounds one attempt to connect, handshake included. Default 10 s.
	DialTimeout time.Duration

	// ManagementURL is RabbitMQ's management API, such as http://host:15672, with user and password unless they are
	// those of the first of URLs. With it Queues lists all queues of the virtual host, without it those that this
	// driver declared. Default: none.
	ManagementURL string

	// ConnectionName is how RabbitMQ's listings show the connections, ".publish" or ".consume" added. Default "bannou".
	ConnectionName string

	// MaxMessageBytes bounds a body. RabbitMQ closes the channel, on which others wait, when a message is larger than its
	// own limit, so this one must not be above the broker's max_message_size. Default 16 MiB, the default of RabbitMQ 4.
	MaxMessageBytes int

	// MeterProvider receives the metric bannou.rabbitbus.dropped, of dead letters that the store's limits removed. Default:
	// none is kept.
	MeterProvider metric.MeterProvider
	// Logger is told of connections, their loss, and what could not be declared. Default: nothing is logged.
	Logger *slog.Logger
}

// withDefaults returns the configuration that is in force.
func (c Config) withDefaults() Config {
	if c.Exchange == "" {
		c.Exchange = "bannou"
	}
	if c.DeadLetterExchange == "" {
		c.DeadLetterExchange = "bannou-dlx"
	}
	if c.QueueType == "" {
		c.QueueType = Classic
	}
	if c.RetryDelay <= 0 {
		c.RetryDelay = time.Second
	}
	if c.MaxRetryDelay <= 0 {
		c.MaxRetryDelay = time.Minute
	}
	c.MaxRetryDelay = max(c.MaxRetryDelay, c.RetryDelay)
	if c.Heartbeat <= 0 {
		c.Heartbeat = 10 * time.Second
	}
	c.Heartbeat = max(c.Heartbeat, time.Second)
	if c.DialTimeout <= 0 {
		c.DialTimeout = 10 * time.Second
	}
	if c.ConnectionName == "" {
		c.ConnectionName = "bannou"
	}
	if c.MaxMessageBytes <= 0 {
		c.MaxMessageBytes = 16 << 20
	}
	if c.MeterProvider == nil {
		c.MeterProvider = noop.NewMeterProvider()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// check reports what New would not work with.
func (c Config) check() error {
	if len(c.URLs) == 0 {
		return fmt.Errorf("%w: no RabbitMQ URL is given; name at least one, such as amqp://user:password@host:5672", bus.ErrInvalid)
	}
	for _, u := range c.URLs {
		if _, err := amqp.ParseURI(u); err != nil {
			return fmt.Errorf("%w: RabbitMQ URL %s: %s", bus.ErrInvalid, redactURL(u), redactText(err.Error(), u))
		}
	}
	if c.QueueType != Classic && c.QueueType != Quorum {
		return fmt.Errorf("%w: queue type %q; it is %q or %q", bus.ErrInvalid, c.QueueType, Classic, Quorum)
	}
	if c.Exchange == c.DeadLetterExchange {
		return fmt.Errorf("%w: the exchange and the dead-letter exchange are both %q; they must differ", bus.ErrInvalid, c.Exchange)
	}
	return nil
}

// redactURL returns a URL that may be shown: without password, without query (which may name key files and tokens).
func redactURL(raw string) string {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found {
		return "(not a URL)"
	}
	// The last @ ends the user's part, whatever the password is made of, also when it should have been escaped.
	user, host := "", rest
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		name, _, secret := strings.Cut(rest[:i], ":")
		if secret {
			name += ":***"
		}
		user, host = name+"@", rest[i+1:]
	}
	if i := strings.IndexAny(host, "?#"); i >= 0 {
		host = host[:i]
	}
	return scheme + "://" + user + host
}

// redactText takes the secrets of a URL out of a message that another library wrote about it.
func redactText(text, raw string) string {
	text = strings.ReplaceAll(text, raw, redactURL(raw))
	if u, err := url.Parse(raw); err == nil && u.User != nil {
		if password, ok := u.User.Password(); ok && password != "" {
			text = strings.ReplaceAll(text, password, "***")
			text = strings.ReplaceAll(text, url.QueryEscape(password), "***")
		}
		return text
	}
	// The parser could not read it, and quotes the piece at which it failed: say only that it failed.
	if _, rest, _ := strings.Cut(raw, "://"); strings.Contains(rest, "@") {
		return "it cannot be parsed (is every special character of the password percent-encoded?)"
	}
	return text
}
