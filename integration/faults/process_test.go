package faults_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
)

// The environment of a consumer that runs as a process of its own, this binary once more.
const (
	consumerTopic   = "BANNOU_FAULTS_TOPIC"
	consumerDriver  = "BANNOU_FAULTS_DRIVER"
	consumerAddress = "BANNOU_FAULTS_ADDRESS"
)

// consumerKilled is a consumer process that is killed in the middle of its work while another goes on: what it had in hand is
// handled all the same.
func consumerKilled() fault {
	return fault{name: "consumer process killed", times: 5, harm: func(ctx context.Context, r *run) error {
		c, err := startConsumer(ctx, r)
		if err != nil {
			return err
		}
		const beforeKilled = 200
		for range beforeKilled {
			if err := c.report(r.load.Ledger); err != nil {
				_ = c.kill()
				return fmt.Errorf("the consumer ended by itself: %w", err)
			}
		}
		if err := c.kill(); err != nil {
			return err
		}
		for c.report(r.load.Ledger) == nil { // what it said before it died
		}
		return nil
	}}
}

// claimIdle is how soon what a killed consumer had in hand is taken over, so that a run need not wait for the default's 30 s. A
// consumer that has no processor for so long is taken for dead too: that shows as duplicates.
const claimIdle = 3 * time.Second

// A consumer is another process that handles a load, and writes what it has handled to a pipe.
type consumer struct {
	cmd  *exec.Cmd
	pipe io.Closer
	said *bufio.Reader
}

func startConsumer(ctx context.Context, r *run) (*consumer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), consumerTopic+"="+r.load.Topic, consumerDriver+"="+r.system.driver, consumerAddress+"="+r.system.url)
	cmd.Stdout, cmd.Stderr = write, os.Stderr
	err = cmd.Start()
	_ = write.Close() // the child has its own
	if err != nil {
		_ = read.Close()
		return nil, err
	}
	return &consumer{cmd: cmd, pipe: read, said: bufio.NewReader(read)}, nil
}

// report enters the next event that the process has handled.
func (c *consumer) report(l *faults.Ledger) error {
	line, err := c.said.ReadString('\n')
	if err != nil {
		_ = c.pipe.Close()
		return err
	}
	var subscription, number int
	if _, err := fmt.Sscan(line, &subscription, &number); err != nil {
		return err
	}
	l.Handled(subscription, number)
	return nil
}

// kill ends the process with SIGKILL, and waits for its end.
func (c *consumer) kill() error {
	err := c.cmd.Process.Kill()
	_ = c.cmd.Wait() // it says that it was killed
	return err
}

// consume is the consumer process. It handles until it is killed, and writes a line for each event before it is
// acknowledged.
func consume(topic string) int {
	err := func() error {
		d, err := openConsumer(os.Getenv(consumerDriver), os.Getenv(consumerAddress))
		if err != nil {
			return err
		}
		b, err := bus.New(d, bus.Config{Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
		if err != nil {
			return err
		}
		err = faults.Handle(b, topic, 2, func(subscription, number int) {
			_, _ = fmt.Fprintf(os.Stdout, "%d %d\n", subscription, number) // one write: a line or nothing
		})
		if err != nil {
			return err
		}
		return b.Run(context.Background())
	}()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "consumer:", err)
		return 1
	}
	return 0
}

func openConsumer(driver, url string) (bus.Driver, error) {
	if driver == "redis" {
		return redisbus.New(redisbus.Config{URLs: []string{url}, ClaimIdle: claimIdle})
	}
	return rabbitbus.New(rabbitbus.Config{URLs: []string{url}})
}
