// Package cli is the command line of bannou: the commands, their help, and what they print.
//
// Each command is a struct of kong with a Run method, in the file named for it. Exit codes: 0 done, 1 the node or the
// command failed, 2 the command line or the configuration is wrong.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/bannou-mesh/bannou/cmd/internal/node"
)

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

type commands struct {
	Serve       serveCommand       `cmd:"" help:"Run a node: all services in one process by default, with embedded storage."`
	Publish     publishCommand     `cmd:"" help:"Publish an event."`
	Tail        tailCommand        `cmd:"" help:"Print the events of a topic as they come."`
	State       stateCommand       `cmd:"" help:"Read, write and query stores."`
	Stores      storesCommand      `cmd:"" help:"List the stores."`
	Events      eventsCommand      `cmd:"" help:"Append to the log of events, read and follow it, look back, and erase persons from it."`
	Endpoints   endpointsCommand   `cmd:"" help:"List the endpoints of the mesh, or watch them."`
	Routes      routesCommand      `cmd:"" help:"Say which app-id each service is on, and who takes its calls."`
	Targets     targetsCommand     `cmd:"" help:"Show what the node learned of the instances that it calls."`
	Invoke      invokeCommand      `cmd:"" help:"Call a method of a service through the mesh."`
	DeadLetters deadLettersCommand `cmd:"" help:"List, show, replay and discard events that were given up."`
	Outbox      outboxCommand      `cmd:"" help:"List, retry and discard events that were kept while the broker was away and that no broker takes."`
	Projections projectionsCommand `cmd:"" help:"List, rebuild, swap, pause, resume and drop read models of the log of events."`
	Sagas       sagasCommand       `cmd:"" help:"List and show sagas, and help those along that wait for a person."`
	Migrate     migrateCommand     `cmd:"" help:"The way off Dapr and back: say what is where and whether it is safe to switch, and decide about single stores and services."`
	Topics      topicsCommand      `cmd:"" help:"List the topics with their messages and consumers."`
	Tap         tapCommand         `cmd:"" help:"Copy the events of topics to other exchanges."`
	Health      healthCommand      `cmd:"" help:"Say whether the node is ready; for health checks of containers."`
	Echo        echoCommand        `cmd:"" help:"Serve HTTP and print each request: something to call back and to invoke while trying things out."`
	New         newCommand         `cmd:"" help:"Write a service to begin with."`
	Version     versionCommand     `cmd:"" help:"Print the version."`
}

// usageError marks an error as the caller's: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// stdio is what a command reads from and prints to.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// Main runs the command line and returns the exit code. The first interrupt or SIGTERM asks the command to end; the
// second ends the process at once.
func Main(args []string, version string, in io.Reader, out, errw io.Writer) int {
	return MainWith(node.Options{}, args, version, in, out, errw)
}

// MainWith is Main with a node that no setting describes, for programs that try one out.
func MainWith(o node.Options, args []string, version string, in io.Reader, out, errw io.Writer) int {
	return run(new(commands), o, args, version, &stdio{in, out, errw},
		kong.Name("bannou"),
		kong.Description("A bus, state and a mesh for services, in one binary. `bannou serve` runs a node; the other commands talk to one."),
	)
}

// run reads the command line by the grammar of commands, and runs what it names.
func run(grammar any, o node.Options, args []string, version string, std *stdio, about ...kong.Option) int {
	errw := std.err
	ctx, stop := interruptible(errw)
	defer stop()

	exited, code := false, exitOK
	parser, err := kong.New(grammar, append(about,
		kong.PostBuild(flagsAlone),
		kong.DefaultEnvars("BANNOU"),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Writers(std.out, errw),
		kong.Exit(func(c int) { exited, code = true, c }),
		kong.Bind(std, versionString(version), o),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)...)
	if err != nil {
		return report(errw, err)
	}
	parsed, err := parser.Parse(args)
	if exited { // --help has printed
		return code
	}
	if err != nil {
		return report(errw, usageError{err})
	}
	parsed.Bind(parser.Model)
	return report(errw, parsed.Run())
}

// flagsAlone takes variables away from the flags of single calls: an ETag or a count that happens to be in the environment
// must not change what a command does, and echo does not listen where the node does. What is left are the settings of
// serve, those of them that say where stores are for the command that goes there itself, and the node, who the caller is and the
// form of output of all other commands.
func flagsAlone(k *kong.Kong) error {
	const none = "-" // kong's word for it
	shared := []string{"node", "output", "token-file", "ca-file", "cert-file", "key-file"}
	for _, leaf := range k.Model.Leaves(false) {
		for _, f := range leaf.Flags {
			if leaf.Name != "serve" && !slices.Contains(shared, f.Name) && (leaf.Name != "migrate" || !ofServers(f.Name)) {
				f.Envs = []string{none}
			}
		}
	}
	return nil
}

// ofServers reports a setting that says where stores are kept.
func ofServers(flag string) bool {
	return strings.HasPrefix(flag, "state-") || flag == "data-dir" || flag == "config"
}

// report prints an error as one line and turns it into an exit code, which is all that is left where it cannot print.
func report(w io.Writer, err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		for line := range strings.Lines(err.Error()) {
			_, _ = fmt.Fprintf(w, "bannou: %s\n", strings.TrimSpace(line))
		}
		return exitUsage
	default:
		_, _ = fmt.Fprintf(w, "bannou: %s\n", err)
		return exitFailure
	}
}

// together is how far apart signals may come that mean one request to end: some supervisors signal a process and then its
// group.
const together = 200 * time.Millisecond

// interruptible gives a context that the first SIGINT or SIGTERM cancels; the second ends the process.
func interruptible(errw io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		var first time.Time
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				switch {
				case first.IsZero():
					first = time.Now()
					cancel()
				case time.Since(first) > together:
					_, _ = fmt.Fprintf(errw, "bannou: second %s: stopping at once\n", s)
					os.Exit(exitFailure)
				}
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel()
	}
}
