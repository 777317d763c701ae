package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"github.com/bannou-mesh/bannou/integration/link"
	"github.com/bannou-mesh/bannou/integration/servers"
)

// names are what nodes are called, in the order in which they come.
func names() []string {
	return []string{"ada", "bob", "cay", "dan", "eve", "fay", "gil", "hal", "ivy"}
}

// A demonstration is the whole of it.
type demonstration struct {
	binary string
	nodes  int
	act    time.Duration
	out    *screen

	folder  string
	servers link.Servers
	running []*node
	caller  *caller
	load    *load
	left    error // what could not be ended
}

func (d *demonstration) run(ctx context.Context) (err error) {
	if most := len(names()) - 1; d.nodes < 1 || d.nodes > most {
		return fmt.Errorf("-nodes %d: choose from 1 to %d", d.nodes, most)
	}
	logging.Disable() // the Redis client's own, of connections
	if d.binary, err = filepath.Abs(d.binary); err != nil {
		return err
	}
	if _, err := os.Stat(d.binary); err != nil {
		return fmt.Errorf("the program is not there, `make build` builds it: %w", err)
	}
	if d.folder, err = os.MkdirTemp("", "bannou-demo-"); err != nil {
		return err
	}
	defer func() { d.left = errors.Join(d.left, os.RemoveAll(d.folder)) }()
	d.out.title("Bannou: a node dies under load, another joins, and no call fails")
	redis, err := servers.StartRedis(ctx, servers.RedisOptions{})
	if err != nil {
		return err
	}
	defer func() { d.left = errors.Join(d.left, redis.Close()) }() //nolint:contextcheck // also when the context has ended
	d.servers = link.Servers{Registry: redis.URL, Bus: redis.URL}
	d.out.fact("Redis", redis.Addr, "registry, bus and state")
	defer func() { d.left = errors.Join(d.left, d.stop()) }() //nolint:contextcheck // also when the context has ended
	if err := d.begin(ctx); err != nil {
		return err
	}
	return d.play(ctx)
}

// begin starts the nodes and the caller.
func (d *demonstration) begin(ctx context.Context) error {
	for range d.nodes {
		if _, err := d.start(ctx); err != nil {
			return err
		}
	}
	var err error
	if d.caller, err = newCaller(ctx, d.servers, d.nodes); err != nil {
		return err
	}
	return d.caller.prepare(ctx)
}

// play is the three acts.
func (d *demonstration) play(ctx context.Context) error {
	d.out.line("")
	d.out.line(fmt.Sprintf("  Load: %d callers, POST /state/get with an idempotency key, from this process straight to a node", callers))
	d.out.line("")
	d.load = d.caller.begin() //nolint:contextcheck // a call under way comes to its end, whatever happens here
	defer d.load.end()
	table := newTable(d.out, names()[:d.nodes+1])
	show := func() error { return table.follow(ctx, d.load, d.running, d.act) }
	if err := show(); err != nil {
		return err
	}
	victim := d.running[d.nodes/2]
	if err := victim.kill(); err != nil {
		return err
	}
	table.event("x", victim.name+" is killed (SIGKILL), process "+fmt.Sprint(victim.cmd.Process.Pid))
	if err := show(); err != nil {
		return err
	}
	came, err := d.start(ctx)
	if err != nil {
		return err
	}
	first, err := d.load.firstAnswer(ctx, came)
	if err != nil {
		return err
	}
	table.event("+", fmt.Sprintf("%s joins, and answers its first call %d ms after it was ready", came.name, first.Milliseconds()))
	if err := show(); err != nil {
		return err
	}
	d.load.end()
	return d.verdict()
}

// start starts the next node, and returns when it is ready.
func (d *demonstration) start(ctx context.Context) (*node, error) {
	begun := time.Now()
	n, err := startNode(ctx, d.binary, d.folder, names()[len(d.running)], d.servers)
	if n != nil {
		d.running = append(d.running, n)
	}
	if err == nil && d.load == nil {
		d.out.fact(n.name, n.address, fmt.Sprintf("a node, process %d, ready in %d ms", n.cmd.Process.Pid, time.Since(begun).Milliseconds()))
	}
	return n, err
}

// verdict says how it went; calls that failed are an error.
func (d *demonstration) verdict() error {
	t := d.load.totals()
	d.out.line("")
	for _, n := range d.running {
		fate := ""
		if n.killed {
			fate = "killed"
		}
		d.out.line(fmt.Sprintf("  %-5s %9s calls answered  %s %s", n.name, grouped(t.answered[n.address]), share(t.answered[n.address], t.calls), fate))
	}
	d.out.line("")
	d.out.verdict(t.failed == 0, fmt.Sprintf("%s calls, %s errors, %s attempts after the first", grouped(t.calls), grouped(t.failed), grouped(t.retried)))
	if t.failed > 0 {
		return fmt.Errorf("%w: %d of %d failed, the first with: %w", errFailed, t.failed, t.calls, t.first)
	}
	return nil
}

// stop ends what begin started, also when the context has ended.
func (d *demonstration) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if d.load != nil {
		d.load.end()
	}
	var errs []error
	if d.caller != nil {
		errs = append(errs, d.caller.close(ctx))
	}
	ended := make(chan error, len(d.running))
	for _, n := range d.running {
		go func() { ended <- n.stop(ctx) }()
	}
	for range d.running {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}
