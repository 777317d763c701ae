package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/cmd/internal/node"
)

type serveCommand struct {
	File config.File `name:"config" type:"path" help:"YAML file with settings. A flag counts more than a variable, that more than the file, that more than the default."`
	config.Config
}

// Help is printed below the flags.
func (serveCommand) Help() string {
	return `Without flags a node runs every service on 127.0.0.1:3500, with the bus in memory and state in ./.bannou and in memory.
Each setting is a flag, a BANNOU_* variable and a member of the YAML file: --messaging-retry-delay-ms is
BANNOU_MESSAGING_RETRY_DELAY_MS is messaging.retryDelayMs.`
}

func (c *serveCommand) Run(ctx context.Context, std *stdio, version versionString, app *kong.Application, o node.Options) error {
	var err error
	if c.State.Stores, err = c.File.Stores(); err != nil {
		return usageError{err}
	}
	if c.State.Mirrors, err = c.File.Mirrors(); err != nil {
		return usageError{err}
	}
	if c.Messaging.DaprTopics, err = c.File.DaprTopics(); err != nil {
		return usageError{err}
	}
	if c.Apps, err = c.File.Apps(); err != nil {
		return usageError{err}
	}
	if c.Mesh.Access, err = c.File.MeshAccess(); err != nil {
		return usageError{err}
	}
	if c.Mesh.Resilience, err = c.File.Resilience(); err != nil {
		return usageError{err}
	}
	if c.Events.Access, err = c.File.EventsAccess(); err != nil {
		return usageError{err}
	}
	if o.Own != nil {
		c.Own = o.Own.Name
	}
	if err := c.ReadDecisions(); err != nil {
		return usageError{err}
	}
	if err := c.Resolve(); err != nil {
		return usageError{err}
	}
	log := c.logger(std)
	for _, name := range config.UnknownVariables(app) {
		log.Warn("this variable is no setting; see `bannou serve --help`", "variable", name)
	}
	for _, why := range c.Overruled() {
		log.Warn("a decision of `bannou migrate` does not hold: settings count more", "why", why, "file", c.DecisionFile())
	}
	for _, chosen := range c.ByName() {
		log.Info("a backend is chosen by name", "choice", chosen)
	}
	if c.Open() {
		log.Warn("this node asks nobody who they are, as --insecure allows: whoever reaches it may use it; keep strangers out of its network, "+
			"or set --mesh-token-file or certificates", "listen", c.Listen)
	}
	listener, err := listen(ctx, c.Listen)
	if err != nil {
		return usageError{err}
	}
	n, err := node.New(&c.Config, string(version), listener, log, o) //nolint:contextcheck // it closes what it opened, also when ctx has ended
	if err != nil {
		return errors.Join(usageError{err}, listener.Close())
	}
	return n.Run(ctx)
}

func (c *serveCommand) logger(std *stdio) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		level = slog.LevelInfo // the flag has allowed nothing else
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(std.err, options))
	}
	return slog.New(slog.NewTextHandler(std.err, options))
}

// listen says what to do about an address that cannot be had.
func listen(ctx context.Context, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("cannot listen on %s: the port is in use; stop what uses it, or choose another with --listen", address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("cannot listen on %s: not permitted; choose a port from 1024 up with --listen", address)
	case err != nil:
		return nil, fmt.Errorf("cannot listen on %s: %w; choose another address with --listen", address, err)
	}
	return listener, nil
}
