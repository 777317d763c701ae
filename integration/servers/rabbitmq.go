package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// RabbitMQURL is the environment variable that names a RabbitMQ for shared use.
	RabbitMQURL = "BANNOU_TEST_RABBITMQ_URL"
	// RabbitMQAPI is the environment variable that names the management API of that RabbitMQ.
	RabbitMQAPI = "BANNOU_TEST_RABBITMQ_API"
)

func rabbitProduct() product {
	return product{name: "RabbitMQ", debian: "rabbitmq-server", fedora: "rabbitmq-server", homebrew: "rabbitmq", variable: RabbitMQURL}
}

// RabbitServer is a RabbitMQ broker, or one of its virtual hosts.
type RabbitServer struct {
	*Server

	// URL is amqp://user:password@host:port/vhost. The user may do everything.
	URL string
	// API is http://host:port of the management API, which takes the user and password of the URL; empty when it does not run.
	API string
	// Vhost is the virtual host of the URL; "/" for a private broker.
	Vhost string

	tools command // its command line tools: their folder and environment
}

// RabbitOptions configures a RabbitMQ. The zero value is RabbitMQ's own defaults.
type RabbitOptions struct {
	// Management runs the management API. Without it a graceful stop takes 1 s, with it 6 s.
	Management bool
	// Config is added to rabbitmq.conf, in lines such as "vm_memory_high_watermark.absolute = 200MB".
	Config string
}

// StartRabbitMQ starts a RabbitMQ of its own, which the caller has to Close. It returns when the broker takes an AMQP connection, or with an error
// that shows the end of its log. An error is ErrMissing when rabbitmq-server is not installed.
func StartRabbitMQ(ctx context.Context, o RabbitOptions) (*RabbitServer, error) {
	n, err := newRabbitNode("test@localhost", o)
	if err != nil {
		return nil, err
	}
	server, ports, err := launch(ctx, n.plan(n.mapper, n.broker))
	if err != nil {
		return nil, err
	}
	return n.server(server, ports), nil
}

// Ctl runs rabbitmqctl against a private broker and returns what it writes: "set_vm_memory_high_watermark", "0.00001" blocks publishers,
// "close_all_connections", "test" closes connections. It takes about 0.3 s.
func (r *RabbitServer) Ctl(ctx context.Context, args ...string) (string, error) {
	return r.tool(ctx, "rabbitmqctl", args...)
}

// tool runs one of RabbitMQ's command line tools.
func (r *RabbitServer) tool(ctx context.Context, name string, args ...string) (string, error) {
	var out []byte
	err := r.fault(name+" "+strings.Join(args, " ")+" of", func() error {
		if !r.running() {
			return ErrNotRunning
		}
		c := exec.CommandContext(ctx, filepath.Join(r.tools.path, name), args...) //nolint:gosec // a test says what to run
		c.Env = r.tools.env
		var err error
		if out, err = c.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", errors.Join(ctx.Err(), err), lastLines(out))
		}
		return nil
	})
	return string(out), err
}

// externalRabbit returns the RabbitMQ that the environment names, if it does.
func externalRabbit() (*RabbitServer, bool, error) {
	address := os.Getenv(RabbitMQURL)
	if address == "" {
		return nil, false, nil
	}
	uri, err := amqp.ParseURI(address)
	if err != nil {
		return nil, true, fmt.Errorf("%s is not the URL of a RabbitMQ: want amqp://user:password@host:5672", RabbitMQURL) // without err, which may quote the password
	}
	api := os.Getenv(RabbitMQAPI)
	if api == "" {
		api = "http://" + net.JoinHostPort(uri.Host, "15672")
	}
	server := &Server{name: rabbitProduct().name, refusal: ErrExternal, probe: func(ctx context.Context) error { return connectRabbit(ctx, address) }}
	return &RabbitServer{Server: server, URL: address, API: strings.TrimSuffix(api, "/"), Vhost: uri.Vhost}, true, nil
}

// connectRabbit opens a connection, which takes a whole handshake, and closes it.
func connectRabbit(ctx context.Context, address string) error {
	deadline, bounded := ctx.Deadline()
	if !bounded {
		deadline = time.Now().Add(startTimeout)
	}
	connection, err := amqp.DialConfig(address, amqp.Config{Dial: func(network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return c, c.SetDeadline(deadline) // of the handshake; the library takes it away afterwards
	}})
	if err != nil {
		return err
	}
	return connection.CloseDeadline(deadline)
}

// vhost creates a virtual host of the broker for one test; release deletes it with all that is in it and closes its connections.
func (r *RabbitServer) vhost(ctx context.Context) (part *RabbitServer, release func(context.Context) error, err error) {
	name := "test-" + token()
	path := "vhosts/" + name
	if err := callAPI(ctx, "PUT", r.API, r.URL, path); err != nil {
		return nil, nil, fmt.Errorf("create a virtual host of %s: %w; its plugin rabbitmq_management has to run, at the address in %s where that is not port 15672 of the same host", r.name, err, RabbitMQAPI)
	}
	address, err := url.Parse(r.URL)
	if err != nil {
		return nil, nil, fmt.Errorf("address of %s is no URL", r.name)
	}
	address.Path = "/" + name
	own := address.String()
	remove := func(ctx context.Context) error { return callAPI(ctx, "DELETE", r.API, r.URL, path) }
	return &RabbitServer{Server: r.part(func(ctx context.Context) error { return connectRabbit(ctx, own) }), URL: own, API: r.API, Vhost: name}, remove, nil
}
