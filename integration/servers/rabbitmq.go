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
	"strconv"
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

const (
	rabbitUser = "bannou"
	rabbitNode = "test@localhost"
)

// RabbitServer is a RabbitMQ broker, or one of its virtual hosts.
type RabbitServer struct {
	*Server

	// URL is amqp://user:password@host:port/vhost. The user may do everything.
	URL string
	// API is http://host:port of the management API, which takes the user and password of the URL; empty when it does not run.
	API string
	// Vhost is the virtual host of the URL; "/" for a private broker.
	Vhost string

	control command // rabbitmqctl, without its arguments
}

// RabbitOptions configures a RabbitMQ. The zero value is RabbitMQ's own defaults.
type RabbitOptions struct {
	// Management runs the management API. Without it a graceful stop takes 1 s, with it 6 s.
	Management bool
	// Config is added to rabbitmq.conf, in lines such as "vm_memory_high_watermark.absolute = 200MB".
	Config string
}

// Places of rabbitmq-server on a broker's ports.
const (
	portAMQP = iota
	portDistribution
	portEPMD
	portControl
	portAPI
	portCount
)

// StartRabbitMQ starts a RabbitMQ of its own, which the caller has to Close. It returns when the broker takes an AMQP connection, or with an error
// that shows the end of its log. An error is ErrMissing when rabbitmq-server is not installed.
func StartRabbitMQ(ctx context.Context, o RabbitOptions) (*RabbitServer, error) {
	program, epmd, err := findRabbit()
	if err != nil {
		return nil, err
	}
	r := &RabbitServer{Vhost: "/"}
	password := token()
	server, ports, err := launch(ctx, plan{
		product: rabbitProduct(),
		ports:   portCount,
		prepare: func(_ context.Context, f *folder, ports []int) ([]command, error) {
			env := rabbitEnvironment(f, ports)
			r.control = command{name: "rabbitmqctl", path: filepath.Join(filepath.Dir(program), "rabbitmqctl"), env: env}
			return []command{epmdCommand(f, epmd, ports[portEPMD]), {name: "rabbitmq", path: program, env: env}}, writeRabbitFiles(f, ports, password, o)
		},
		probe: func(ctx context.Context, ports []int) error {
			address := rabbitURL(ports, password)
			if err := connectRabbit(ctx, address); err != nil || !o.Management {
				return err
			}
			return callAPI(ctx, "GET", rabbitAPI(ports), address, "whoami")
		},
	})
	if err != nil {
		return nil, err
	}
	r.Server, r.URL = server, rabbitURL(ports, password)
	if o.Management {
		r.API = rabbitAPI(ports)
	}
	return r, nil
}

func rabbitURL(ports []int, password string) string {
	return "amqp://" + userinfo(rabbitUser, password) + local(ports[portAMQP]) + "/"
}

func rabbitAPI(ports []int) string { return "http://" + local(ports[portAPI]) }

// findRabbit finds RabbitMQ's own scripts, which stand beside rabbitmq-env. What Debian puts on the PATH is another script, which becomes the user
// rabbitmq and works on the system's data.
func findRabbit() (program, epmd string, err error) {
	program, found := executable([]string{"rabbitmq-server"}, []string{
		"/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server", "/opt/rabbitmq/sbin/rabbitmq-server",
		"/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server", "/usr/local/opt/rabbitmq/sbin/rabbitmq-server",
	}, func(path string) bool {
		_, err := os.Stat(filepath.Join(filepath.Dir(path), "rabbitmq-env"))
		return err == nil
	})
	if !found {
		return "", "", rabbitProduct().missing("rabbitmq-server")
	}
	epmd, found = executable([]string{"epmd"}, []string{"/usr/lib/erlang/bin/epmd", "/usr/lib/erlang/erts-*/bin/epmd", "/usr/local/lib/erlang/erts-*/bin/epmd", "/opt/homebrew/opt/erlang/bin/epmd"}, nil)
	if !found {
		return "", "", rabbitProduct().missing("epmd")
	}
	return program, epmd, nil
}

// epmdCommand runs Erlang's port mapper in the foreground. The broker would start one itself that outlives it.
func epmdCommand(f *folder, path string, port int) command {
	return command{
		name: "epmd", path: path, args: []string{"-port", strconv.Itoa(port), "-address", "127.0.0.1"}, env: environment(f.path),
		ready: func(ctx context.Context) error { return reachable(ctx, local(port)) },
	}
}

// rabbitEnvironment names every path and port that RabbitMQ would else take from the system.
func rabbitEnvironment(f *folder, ports []int) []string {
	port := func(place int) string { return strconv.Itoa(ports[place]) }
	return environment(f.path, // the home holds the cookie
		"ERL_EPMD_PORT="+port(portEPMD),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		// Every Erlang machine starts a port mapper of its own where it finds none, as while the broker is killed as it starts.
		"ERL_FLAGS=-start_epmd false",
		"RABBITMQ_NODENAME="+rabbitNode,
		"RABBITMQ_NODE_PORT="+port(portAMQP),
		"RABBITMQ_DIST_PORT="+port(portDistribution),
		"RABBITMQ_CTL_DIST_PORT_MIN="+port(portControl),
		"RABBITMQ_CTL_DIST_PORT_MAX="+port(portControl),
		"RABBITMQ_MNESIA_BASE="+f.file("data"),
		"RABBITMQ_LOG_BASE="+f.file("log"),
		"RABBITMQ_LOGS=-",
		"RABBITMQ_ENABLED_PLUGINS_FILE="+f.file("plugins"),
		"RABBITMQ_CONFIG_FILE="+f.file("rabbitmq.conf"),
		"RABBITMQ_CONFIG_FILES="+f.file("conf.d"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+f.file("advanced.config"),
		"RABBITMQ_CONF_ENV_FILE=/dev/null",
		"RABBITMQ_GENERATED_CONFIG_DIR="+f.file("generated"),
		"RABBITMQ_PID_FILE="+f.file("pid"),
		"ERL_CRASH_DUMP_SECONDS=0", // the log says it
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
		// With input allowed the script becomes the Erlang machine instead of waiting for it, so that our child is the broker itself and signals
		// reach it; -noinput then says that there is none, +B i that SIGINT is not for it.
		"RABBITMQ_ALLOW_INPUT=1",
		"RABBITMQ_SERVER_START_ARGS=-noinput +B i",
	)
}

func writeRabbitFiles(f *folder, ports []int, password string, o RabbitOptions) error {
	plugins := "[]."
	config := fmt.Sprintf("listeners.tcp.1 = %s\ndefault_user = %s\ndefault_pass = %s\nlog.console = true\nlog.console.level = warning\nlog.file = false\n",
		local(ports[portAMQP]), rabbitUser, password)
	if o.Management {
		plugins = "[rabbitmq_management]."
		config += fmt.Sprintf("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = %d\n", ports[portAPI])
	}
	return errors.Join(
		os.MkdirAll(f.file("conf.d"), 0o700),
		os.WriteFile(f.file(".erlang.cookie"), []byte(token()), 0o400),
		os.WriteFile(f.file("plugins"), []byte(plugins), 0o600),
		os.WriteFile(f.file("rabbitmq.conf"), []byte(config+o.Config+"\n"), 0o600),
	)
}

// Ctl runs rabbitmqctl against a private broker and returns what it writes: "set_vm_memory_high_watermark", "0.00001" blocks publishers,
// "close_all_connections", "test" closes connections. It takes about 0.3 s.
func (r *RabbitServer) Ctl(ctx context.Context, args ...string) (string, error) {
	var out []byte
	err := r.fault("rabbitmqctl "+strings.Join(args, " ")+" of", func() error {
		if !r.running() {
			return ErrNotRunning
		}
		c := exec.CommandContext(ctx, r.control.path, args...) //nolint:gosec // a test says what to run
		c.Env = r.control.env
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
