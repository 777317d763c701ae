package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"time"
)

// suites are the benchmarks of the package pairs, as the page has them.
func suites() []suite {
	indexed := map[string]float64{}
	for _, callers := range []string{"1 caller", "16 callers", "64 callers"} {
		indexed["find one by an index, "+callers] = 0.85
		indexed["find 50 by an index for a sorted page of 20, "+callers] = 0.85
	}
	service := map[string]float64{}
	for _, work := range []string{"get redis", "save redis", "get sqlite", "save sqlite"} {
		for _, callers := range []string{"1 caller", "16 callers", "64 callers"} {
			service[work+", "+callers] = 0.90
		}
	}
	return []suite{
		{title: "The bus in memory, beside Watermill's gochannel", benchmark: "BenchmarkMemoryBus",
			bars: map[string]float64{"publish to handled, 1 caller": 1, "publish to handled, 16 callers": 1},
			note: "gochannel alone hands a message on: no queue that bounds and keeps, no retries, no dead letters, no telemetry."},
		{title: "The bus on RabbitMQ, beside amqp091-go", benchmark: "BenchmarkRabbitMQ",
			bars: map[string]float64{"publish confirmed, 64 callers": 1.1, "publish without waiting, window 1000, 1 caller": 0.95,
				"consume with prefetch 100, 1 subscription": 1.1, "publish to handled, 16 callers": 1,
				"publish to handled at half the peak rate, 99th percentile, 16 callers": 0.8}},
		{title: "The bus on Redis Streams, beside go-redis", benchmark: "BenchmarkRedisStreams", bars: map[string]float64{"publish confirmed, 64 callers": 0.9},
			note: "The raw client waits for one answer a round trip on each of its connections; the bus gathers what its callers send."},
		{title: "State on Redis, beside go-redis", benchmark: "BenchmarkRedis",
			note: "The raw client waits for one answer a round trip on each of its connections; the store gathers what its callers ask for.",
			bars: map[string]float64{"get, 1 caller": 0.95, "get, 64 callers": 2.0, "save, 64 callers": 1.8,
				"get 100 at once, 1 caller": 0.90, "get 100 at once, 16 callers": 0.90, "get 100 at once, 64 callers": 0.90}},
		{title: "State on MySQL or MariaDB, beside prepared statements", benchmark: "BenchmarkMySQL",
			note: "The raw query is written for members that are numbers at the top level. A filter finds out for each row what kind of value there is, in arrays too.",
			bars: map[string]float64{"get, 64 callers": 0.95, "save, 1 caller": 0.90, "save, 64 callers": 1.3}},
		{title: "Queries with an index on MySQL or MariaDB, beside prepared statements", benchmark: "BenchmarkMySQLIndexed",
			note: "The raw statements are written for members that are numbers at the top level, and know their index. Ours find strings, arrays and nothing there, too.",
			bars: indexed},
		{title: "State on SQLite, beside prepared statements", benchmark: "BenchmarkSQLite", bars: map[string]float64{"save, 16 callers": 3}},
		{title: "Queries with an index on SQLite, beside prepared statements", benchmark: "BenchmarkSQLiteIndexed",
			note: "The raw statements are written for members that are numbers at the top level, and know their index.", bars: indexed},
		{title: "Events on MySQL or MariaDB, beside prepared statements", benchmark: "BenchmarkEvents",
			note: "The raw side inserts the same rows, gathers those of several callers in the same way, gives positions itself, which one process can, and expects no version. " +
				"It reads with one statement; ours fetches pages, so that no connection waits for who reads. The peak rate is that of 32 callers and a subscription that keeps up with them.",
			bars: map[string]float64{"append, 1 caller": 0.85, "append, 32 callers": 0.80, "append, beside a transaction each with a counter row, 32 callers": 8,
				"read 100000 events, 1 caller": 0.85, "read 100000 events of a category, 1 caller": 0.85, "load an aggregate of 10000 events with a snapshot, beside a get, 1 caller": 0.5},
			limits: map[string]limit{"append to handled at half the peak rate, 32 callers": {p50: 5 * time.Millisecond, p99: 25 * time.Millisecond}}},
		{title: "Rebuilding a projection, beside GROUP BY", benchmark: "BenchmarkProjections",
			note: "From the command until the new version is live, with events of 512 B of twenty types. The raw side is one statement on the same rows, within the server. " +
				"The heap is the client's: what ours takes does not grow with the log.",
			rounds: 3, // a million rows are inserted for each
			bars: map[string]float64{"rebuild of a count of 100000 events, beside GROUP BY, 1 caller": 0.2, "rebuild of a count of 300000 events, beside GROUP BY, 1 caller": 0.2,
				"rebuild of a count of 1000000 events, beside GROUP BY, 1 caller": 0.2}},
		{title: "Publishing a log, beside SELECT and amqp091-go", benchmark: "BenchmarkRelay",
			note: "One operation is the whole category, from its beginning until the last event is confirmed, 256 events of 512 B under way at once. The raw side selects, publishes and waits for " +
				"confirmations. It has no lease, enters no position, and does not wait for the event before in a stream."},
		{title: "Changes with their events, beside transactions by hand", benchmark: "BenchmarkAnnounced",
			note: "A save and an event in the outbox, in one transaction, which the callers share. \"Beside a save alone\" has the same store without publishChanges on the raw side: what the event costs."},
		{title: "The state service over HTTP, beside a handler written by hand", benchmark: "BenchmarkStateService",
			note: "The handler does the same on the same stores, with net/http and encoding/json, and without strict checks, ids of requests, traces, metrics and time limits.",
			bars: service},
		{title: "Sagas on RabbitMQ, beside the SQL and AMQP of the same steps", benchmark: "BenchmarkSagas",
			bars: map[string]float64{"three steps to the end, log on MySQL": 0.6, "three steps to the end, log in memory": 0.6},
			note: "One operation is a whole saga: a start, three commands with their answers, and an event at the end, as many at a time as come. The raw side " +
				"does for each message a transaction with an inbox, the instance and an outbox, then publishes and acknowledges; in memory it has a map. It has no " +
				"timeouts and no compensation, and finds nothing again after a crash."},
		{title: "Capabilities of sessions, on Redis and RabbitMQ", benchmark: "BenchmarkPermissions",
			note: "From when a change is published to when who holds the connections has heard what sessions may call: one of them, or all of them after a service has registered.",
			limits: map[string]limit{"a role of one of 1000 sessions": {p50: 50 * time.Millisecond, p99: 50 * time.Millisecond},
				"a registration until 1000 sessions know": {p50: 50 * time.Millisecond, p99: 50 * time.Millisecond}}},
		{title: "Picking an instance, beside a counter and a list", benchmark: "BenchmarkMeshPick",
			note: "What a call pays to find its instance: mapping, app-id, pool and balancer. From 64 goroutines less than 100 ns are wanted. The counter knows nothing of what it spreads."},
		{title: "The mesh, beside net/http", benchmark: "BenchmarkMesh",
			bars: map[string]float64{"call through a proxy, 1 caller": 1, "call through a proxy, 16 callers": 1, "call through a proxy, 64 callers": 1,
				"call over HTTP, 1 caller": 0.92, "call over HTTP, 16 callers": 0.92, "call over HTTP, 64 callers": 0.92, "call in the same process beside HTTP over loopback, 1 caller": 20},
			note: "A call within the process has no raw counterpart but the call over loopback that it spares. Behind a proxy the raw side is a " +
				"bare httputil.ReverseProxy. The processor's time is that of everything: caller, proxy and server."},
		{title: "The gateway, beside net/http and bare WebSockets", benchmark: "BenchmarkGateway",
			note: "A call goes as a binary frame to a handler in the gateway's process; the raw side posts to the same handler over loopback. An event is " +
				"published once for each of 1000 sessions, and acknowledged by each; the raw side writes as much to 1000 WebSockets. An operation has reached all."},
		{title: "A login, a validation and a call through the gateway, beside the same handlers on net/http", benchmark: "BenchmarkLogin",
			note: "The gateway's side makes a WebSocket for each operation, with a record in the store, a queue and the events of its beginning and its end; the raw side posts three times on " +
				"a connection that is there."},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	root := flag.String("root", "..", "the repository's root")
	out := flag.String("out", "../docs/benchmarks.md", "the page to write")
	rounds := flag.Int("rounds", 5, "runs of each benchmark, at least 3")
	length := flag.Duration("length", 300*time.Millisecond, "length of each run")
	flag.Parse()
	if *rounds < 3 {
		return errors.New("-rounds: a median needs at least 3")
	}

	var page strings.Builder
	fmt.Fprintf(&page, heading, time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.NumCPU(), processorModel(), load(), *rounds)
	node, err := measureNode(ctx, *root, 11)
	if err != nil {
		return err
	}
	node.write(&page)
	p, err := compile(ctx, *root)
	if err != nil {
		return err
	}
	defer p.remove()
	var missed []string
	for _, s := range suites() {
		results, err := s.run(ctx, p, min(*rounds, cmp.Or(s.rounds, *rounds)), *length)
		if err != nil {
			return err
		}
		s.write(&page, results)
		missed = append(missed, s.missed(results)...)
	}
	for _, m := range missed {
		fmt.Fprintln(os.Stderr, "bench: a bar is missed:", m)
	}
	return os.WriteFile(*out, []byte(page.String()), 0o644) //nolint:gosec // a page for everyone
}

const heading = `# Benchmarks

Written by ` + "`make bench`" + ` on %s with %s on %d cores (%s),
servers and clients sharing them%s.
Each figure is the median of %d runs, the raw library's and ours in turn: the same server and durability, the same values
coded and checked, the same number of callers. A ratio above 1 means that we are faster than what is underneath; behind it
are the lowest and the highest of the runs, which tell how quiet the machine was. A bar is the ratio that is to be reached.

`

func processorModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(info)) {
		if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// load says how busy the machine is, where the system tells.
func load() string {
	averages, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	minute, _, _ := strings.Cut(string(averages), " ")
	return ", load average " + minute + " before the start"
}

// output runs a command and returns what it prints; what it complains of goes to standard error.
func output(ctx context.Context, folder, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // the commands of this package
	cmd.Dir = folder
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
