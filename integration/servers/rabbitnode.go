package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

const rabbitUser = "bannou"

// Places of rabbitmq-server on a node's ports.
const (
	portAMQP = iota
	portDistribution
	portEPMD
	portControl
	portAPI
	portCount
)

// rabbitNode is what a node of RabbitMQ is started with, alone or as a member of a cluster.
type rabbitNode struct {
	program, epmd string // paths
	name          string // as Erlang writes it: name@host
	cookie        string // by which nodes and rabbitmqctl know each other
	password      string
	options       RabbitOptions
}

func newRabbitNode(name string, o RabbitOptions) (rabbitNode, error) {
	program, epmd, err := findRabbit()
	return rabbitNode{program: program, epmd: epmd, name: name, cookie: token(), password: token(), options: o}, err
}

// plan starts the node by these commands.
func (n rabbitNode) plan(commands ...func(f *folder, ports []int) command) plan {
	return plan{
		product: rabbitProduct(),
		ports:   portCount,
		prepare: func(_ context.Context, f *folder, ports []int) ([]command, error) {
			var list []command
			for _, c := range commands {
				list = append(list, c(f, ports))
			}
			return list, n.write(f, ports)
		},
		probe: func(ctx context.Context, ports []int) error {
			address := n.url(ports)
			if err := connectRabbit(ctx, address); err != nil || !n.options.Management {
				return err
			}
			return callAPI(ctx, "GET", rabbitAPI(ports), address, "whoami")
		},
	}
}

// server is the node after it was started.
func (n rabbitNode) server(s *Server, ports []int) *RabbitServer {
	r := &RabbitServer{Server: s, URL: n.url(ports), Vhost: "/"}
	r.tools = command{path: filepath.Dir(n.program), env: n.environment(s.folder, ports)}
	if n.options.Management {
		r.API = rabbitAPI(ports)
	}
	return r
}

func (n rabbitNode) url(ports []int) string {
	return "amqp://" + userinfo(rabbitUser, n.password) + local(ports[portAMQP]) + "/"
}

func rabbitAPI(ports []int) string { return "http://" + local(ports[portAPI]) }

// broker is the command that runs the node itself.
func (n rabbitNode) broker(f *folder, ports []int) command {
	return command{name: "rabbitmq", path: n.program, env: n.environment(f, ports)}
}

// mapper is the command that runs the port mapper of the node.
func (n rabbitNode) mapper(f *folder, ports []int) command {
	return epmdCommand(f, n.epmd, ports[portEPMD])
}

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

// environment names every path and port that RabbitMQ would else take from the system.
func (n rabbitNode) environment(f *folder, ports []int) []string {
	port := func(place int) string { return strconv.Itoa(ports[place]) }
	return environment(f.path, // the home holds the cookie
		"ERL_EPMD_PORT="+port(portEPMD),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		// Every Erlang machine starts a port mapper of its own where it finds none, as while the broker is killed as it starts.
		"ERL_FLAGS=-start_epmd false",
		"RABBITMQ_NODENAME="+n.name,
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

// write writes the files that the node reads.
func (n rabbitNode) write(f *folder, ports []int) error {
	plugins := "[]."
	config := fmt.Sprintf("listeners.tcp.1 = %s\ndefault_user = %s\ndefault_pass = %s\nlog.console = true\nlog.console.level = warning\nlog.file = false\n",
		local(ports[portAMQP]), rabbitUser, n.password)
	if n.options.Management {
		plugins = "[rabbitmq_management]."
		config += fmt.Sprintf("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = %d\n", ports[portAPI])
	}
	return errors.Join(
		os.MkdirAll(f.file("conf.d"), 0o700),
		os.WriteFile(f.file(".erlang.cookie"), []byte(n.cookie), 0o400),
		os.WriteFile(f.file("plugins"), []byte(plugins), 0o600),
		os.WriteFile(f.file("rabbitmq.conf"), []byte(config+n.options.Config+"\n"), 0o600),
	)
}
