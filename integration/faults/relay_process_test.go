package faults_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/services/relay"
)

// The environment of a relay that runs as a process of its own, this binary once more.
const (
	relayDSN    = "BANNOU_FAULTS_RELAY_DSN"
	relayBroker = "BANNOU_FAULTS_RELAY_BROKER"
	relayTopic  = "BANNOU_FAULTS_RELAY_TOPIC"
)

const (
	relayName     = "orders"
	relayCategory = "order"
	relayLease    = 500 * time.Millisecond
)

// A relayProcess publishes the log, or waits for the lead, until its standard input ends, or it is killed.
type relayProcess struct {
	cmd      *exec.Cmd
	stdin    io.Closer
	consumer string // of the relay's subscription
}

// startRelay starts one, and returns when it is among those that may lead.
func (r *relayRun) startRelay(ctx context.Context) error {
	p := &relayProcess{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), relayDSN+"="+r.dsn, relayBroker+"="+r.broker.URL, relayTopic+"="+r.topic)
	p.cmd.Stderr = os.Stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	r.relays = append(r.relays, p)
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.consumer, err = enlisted(ctx, r.db, relayName, r.known)
	r.known = append(r.known, p.consumer)
	return err
}

// leader waits until one of the relays leads, and has it be the last of them.
func (r *relayRun) leader(ctx context.Context) (*relayProcess, error) {
	consumers := make([]string, len(r.relays))
	for i, p := range r.relays {
		consumers[i] = p.consumer
	}
	i, err := leads(ctx, r.db, relayName, consumers)
	if err != nil {
		return nil, err
	}
	leader := r.relays[i]
	r.relays = append(slices.Delete(r.relays, i, i+1), leader)
	return leader, nil
}

// kill ends it with SIGKILL. Ending twice does no harm.
func (p *relayProcess) kill() error {
	if p.cmd.Process == nil || p.cmd.ProcessState != nil {
		return nil
	}
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it says that it was killed
	return err
}

// end has it stop by itself.
func (p *relayProcess) end() error { return errors.Join(p.stdin.Close(), p.cmd.Wait()) }

// relayEvents is the process.
func relayEvents(dsn, broker, topic string) int {
	ctx, stop := context.WithCancel(context.Background())
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); stop() }()
	err := func() (err error) {
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
		database, err := mysqlstate.New(mysqlstate.Config{DSN: dsn})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, database.Close()) }()
		store, err := mysqlevents.Open(database, eventstore.Config{Logger: log})
		if err != nil {
			return err
		}
		driver, err := rabbitbus.New(rabbitbus.Config{URLs: []string{broker}, Logger: log, RetryDelay: 100 * time.Millisecond, MaxRetryDelay: time.Second})
		if err != nil {
			return err
		}
		b, err := bus.New(driver, bus.Config{Logger: log})
		if err != nil {
			return err
		}
		l, err := relay.NewLog(relay.LogConfig{Store: store, Bus: b, Name: relayName, Category: relayCategory, Lease: relayLease, ConfirmTimeout: 2 * time.Second, Logger: log,
			Messages: func(_ context.Context, e eventstore.Recorded) ([]relay.Message, error) {
				return []relay.Message{{Topic: topic, Body: e.Data, Mandatory: true}}, nil
			}})
		if err != nil {
			return err
		}
		if err := l.Start(ctx); err != nil {
			return err
		}
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return errors.Join(l.Stop(ending), b.Close(ending), driver.Close(ending))
	}()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "relay:", err)
		return 1
	}
	return 0
}
