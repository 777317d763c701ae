// Package link gives a program of this module, which is no node, what the nodes of a mesh share: the registry in a Redis, and the bus.
package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
	"github.com/bannou-mesh/bannou/services/membership"
)

// Servers are the addresses of what nodes share.
type Servers struct {
	Registry string // the URL of a Redis
	Bus      string // the URL of a Redis or of a RabbitMQ
}

// A Link is one process's way to the servers. Its bus runs until Close.
type Link struct {
	Registry *mesh.Registry
	Feed     mesh.Feed
	Bus      *bus.Bus

	driver  bus.Driver
	factory *state.Factory
	ran     chan error
}

// Open makes a link for a program of this app-id. It does not wait for the servers.
func Open(s Servers, appID string, log *slog.Logger) (*Link, error) {
	l := &Link{ran: make(chan error, 1)}
	if err := l.open(s, appID, log); err != nil {
		return nil, errors.Join(fmt.Errorf("link to the servers of the mesh: %w", err), l.release(context.Background()))
	}
	go func() { l.ran <- l.Bus.Run(context.Background()) }()
	return l, nil
}

func (l *Link) open(s Servers, appID string, log *slog.Logger) error {
	redis, err := redisstate.New(redisstate.Config{URLs: []string{s.Registry}})
	if err != nil {
		return err
	}
	if l.factory, err = state.NewFactory(membership.Stores("redis", "redis"), []state.Driver{redis}, state.Options{Logger: log}); err != nil {
		return errors.Join(err, redis.Close())
	}
	if l.driver, err = broker(s.Bus, log); err != nil {
		return err
	}
	if l.Bus, err = bus.New(l.driver, bus.Config{AppID: appID, Logger: log}); err != nil {
		return err
	}
	table, err := membership.NewTable(l.factory)
	if err != nil {
		return err
	}
	l.Feed = membership.NewFeed(l.Bus, log)
	l.Registry, err = mesh.NewRegistry(table, l.Feed, mesh.RegistryConfig{Logger: log})
	return err
}

func broker(url string, log *slog.Logger) (bus.Driver, error) {
	if strings.HasPrefix(url, "amqp:") {
		d, err := rabbitbus.New(rabbitbus.Config{URLs: []string{url}, Logger: log, RetryDelay: 100 * time.Millisecond, MaxRetryDelay: time.Second})
		if err != nil {
			return nil, err // and not an interface that holds a nil pointer
		}
		return d, nil
	}
	d, err := redisbus.New(redisbus.Config{URLs: []string{url}, Logger: log})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Close ends the bus and closes every connection.
func (l *Link) Close(ctx context.Context) error {
	err := l.Bus.Close(ctx)
	return errors.Join(err, <-l.ran, l.release(ctx))
}

func (l *Link) release(ctx context.Context) (err error) {
	if l.driver != nil {
		err = l.driver.Close(ctx)
	}
	if l.factory != nil {
		err = errors.Join(err, l.factory.Close())
	}
	return err
}
