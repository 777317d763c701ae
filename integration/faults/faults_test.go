package faults_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
)

var (
	long = flag.Bool("long", false, "harm often, and hold the rate against that before, instead of once and quickly")
	seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the schedule")
	out  = flag.String("out", "", "the page to write; none by default")

	rows faults.Rows // of the tests that run one after another in this process
)

// warm is how many events are settled before anything is measured. Those that fail first wait 1.5 s for the first delay queue
// of their subscription, and meanwhile fill the room for events at work. A quick run holds no rate against another.
func warm() int {
	if *long {
		return 6000
	}
	return 1000
}

// patience is how long anything may take that has to happen in the end.
const patience = time.Minute

// pollPeriod is how often a state is looked at that nobody announces.
const pollPeriod = 50 * time.Millisecond

func TestMain(m *testing.M) {
	flag.Parse()
	if topic := os.Getenv(consumerTopic); topic != "" {
		os.Exit(consume(topic))
	}
	if path := os.Getenv(writerPath); path != "" {
		os.Exit(write(path, os.Getenv(writerRun)))
	}
	if work := os.Getenv(eventWork); work != "" {
		os.Exit(workOnEvents(work, os.Getenv(eventDSN)))
	}
	if dsn := os.Getenv(rebuildDSN); dsn != "" {
		os.Exit(rebuildChains(dsn))
	}
	if dsn := os.Getenv(relayDSN); dsn != "" {
		os.Exit(relayEvents(dsn, os.Getenv(relayBroker), os.Getenv(relayTopic)))
	}
	if described := os.Getenv(instanceVariable); described != "" {
		os.Exit(serveInstance(described))
	}
	if broker := os.Getenv(gatewayBroker); broker != "" {
		os.Exit(serveGateway(broker, os.Getenv(gatewayStore)))
	}
	code := servers.Main(m)
	rows.Add(apartRows.rows)
	_, _ = fmt.Fprint(os.Stdout, rows.String())
	if *out != "" {
		if err := faults.WritePage(*out, &rows); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// A system is a broker with a driver for it.
type system struct {
	driver, kind string
	url          string                // of the broker, for other processes
	rabbit       *servers.RabbitServer // nil: it is another broker
	open         func(log *slog.Logger) (bus.Driver, error)
	inspect      func(ctx context.Context) string // what the broker says of its queues
	share        float64                          // of the rate before that has to come back, in a long run
	slack        time.Duration                    // how late a publish may return
}

// A fault is a harm that is done to a bus under load.
type fault struct {
	name string
	// times is how often a long run does it. A quick one does it once.
	times int
	harm  func(ctx context.Context, r *run) error
	// check is what else must be true in the end; may be nil.
	check func(t *testing.T, r *run)
	// sole: one subscription, and every event mandatory. For what breaks the way to a queue: with two subscriptions an event
	// that reached one of them is routed, and nobody tells that it did not reach the other.
	sole bool
}

// A run is one fault's.
type run struct {
	system system
	driver bus.Driver
	load   *faults.Load
	log    *slog.Logger
	bus    *bus.Bus
	ran    chan error

	subscriptions int
	once          sync.Once
}

// endure puts a bus under load, harms it, and holds it to its promises.
func endure(t *testing.T, s system, f fault) {
	existing := goleak.IgnoreCurrent()
	times, calibration := 1, time.Second
	if *long {
		times, calibration = f.times, 2*time.Second
	}
	row := faults.Row{Fault: f.name, Driver: s.driver, Kind: s.kind, Times: times, Seed: *seed}
	log := new(tail)
	r := start(t, s, f, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn})))
	ledger := r.load.Ledger
	defer func() {
		row.Totals, row.Failed = ledger.Totals(), t.Failed()
		rows.Bus = append(rows.Bus, row)
		t.Logf("seed %d: %+v", *seed, row.Totals)
		if t.Failed() {
			t.Logf("not handled:\n%s\nqueues:\n%s\nlast words of the bus:\n%s", ledger.Missing(), s.inspect(within(t, patience)), log)
			r.stop(t)
		}
	}()

	load, stop := context.WithCancel(context.Background())
	published := make(chan struct{})
	go func() { defer close(published); r.load.Publish(load) }()
	end := sync.OnceFunc(func() { stop(); <-published })
	defer end()

	require.Eventually(t, func() bool { return ledger.Settled() > warm() }, patience, 10*time.Millisecond, "events flow")
	meter := faults.Meter{Ledger: ledger}
	meter.Calibrate(t.Context(), calibration)
	row.Before = meter.Before
	for range times {
		require.NoError(t, f.harm(within(t, 2*patience), r))
		came := meter.Recover(within(t, patience), wanted(s.share))
		if !came.Full {
			t.Logf("the rate came back to %.0f %% of %.0f events/s only", 100*came.Share, meter.Before)
			came = besideNew(t, s, f, ledger)
		}
		if came.After >= row.Recovery.After || !came.Full {
			row.Recovery = came
		}
		require.True(t, came.Full, "of the rate that a new bus has there are %.0f %% only", 100*came.Share)
	}
	end()
	require.Eventually(t, func() bool { return ledger.Totals().Lost == 0 }, patience, pollPeriod, "confirmed, and never handled")
	if f.check != nil {
		f.check(t, r)
	}
	r.stop(t)
	row.Leaked = leaked(existing)
	assert.Zero(t, row.Leaked, "goroutines left")
	assert.Empty(t, ledger.Late(), "publishes that returned later than their deadline")
}

// besideNew measures a load that was harmed beside the same load on a new bus: the machine may have become slower meanwhile, which both bear.
func besideNew(t *testing.T, s system, f fault, harmed *faults.Ledger) faults.Recovery {
	r := start(t, s, f, slog.New(slog.DiscardHandler))
	load, stop := context.WithCancel(context.Background())
	published := make(chan struct{})
	go func() { defer close(published); r.load.Publish(load) }()
	defer func() { stop(); <-published; r.stop(t) }()
	require.Eventually(t, func() bool { return r.load.Ledger.Settled() > warm() }, patience, 10*time.Millisecond, "events flow on the new bus")
	meter := faults.Meter{Ledger: harmed, Beside: r.load.Ledger}
	return meter.Recover(within(t, patience), wanted(s.share))
}

// wanted is the share of the rate before that has to come back. A quick run, among others' tests, asks only whether events
// flow.
func wanted(share float64) float64 {
	if *long {
		return share
	}
	return 0.1
}

// lasting is how long a harm lasts that is to last so long: two seconds of it in a quick run.
func lasting(d time.Duration) time.Duration {
	if *long {
		return d
	}
	return min(d, 2*time.Second)
}

// start opens a bus whose handlers are at work.
func start(t *testing.T, s system, f fault, log *slog.Logger) *run {
	d, err := s.open(log)
	require.NoError(t, err)
	subscriptions := 2
	if f.sole {
		subscriptions = 1
	}
	r := &run{system: s, driver: d, log: log, subscriptions: subscriptions, load: &faults.Load{
		Topic: fmt.Sprintf("faults.n%d", time.Now().UnixNano()), Ledger: faults.NewLedger(subscriptions, s.slack), Seed: *seed, Mandatory: f.sole,
	}}
	require.NoError(t, r.reopen(within(t, patience)))
	return r
}

// reopen closes the bus, if there is one, and makes another on the same driver.
func (r *run) reopen(ctx context.Context) error {
	if r.bus != nil {
		if err := r.bus.Close(ctx); err != nil {
			return err
		}
		if err := <-r.ran; err != nil {
			return err
		}
	}
	b, err := bus.New(r.driver, bus.Config{Logger: r.log})
	if err != nil {
		return err
	}
	if err := faults.Handle(b, r.load.Topic, r.subscriptions, r.load.Ledger.Handled); err != nil {
		return err
	}
	ran := make(chan error, 1)
	go func() { ran <- b.Run(context.Background()) }()
	select {
	case <-b.Running():
	case <-ctx.Done():
		return ctx.Err()
	}
	r.bus, r.ran = b, ran
	r.load.Use(b)
	return r.declared(ctx)
}

// declared waits until the queues exist: only then does what is published have to arrive. A bus runs before that when its
// broker takes long.
func (r *run) declared(ctx context.Context) error {
	for {
		list, err := r.driver.Queues(ctx)
		if err != nil {
			return err
		}
		found := 0
		for _, q := range list {
			if strings.HasPrefix(q.Name, r.load.Topic+".") {
				found++
			}
		}
		if found >= r.subscriptions {
			return nil
		}
		if err := faults.Pause(ctx, pollPeriod); err != nil {
			return fmt.Errorf("%d of %d queues are declared: %w", found, r.subscriptions, err)
		}
	}
}

// stop closes all that the run opened.
func (r *run) stop(t *testing.T) { r.once.Do(func() { r.close(t) }) }

func (r *run) close(t *testing.T) {
	assert.NoError(t, r.bus.Close(within(t, patience)))
	assert.NoError(t, <-r.ran)
	assert.NoError(t, r.driver.Close(within(t, patience)))
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// leaked is how many goroutines are left that were not there before. Those that end by themselves are none: when a pool of go-redis was closed,
// its search for a server that is away sleeps for a second more.
func leaked(but ...goleak.Option) int {
	for late := time.Now().Add(patience / 4); ; {
		found := goleak.Find(but...) // which waits for a second itself
		switch {
		case found == nil:
			return 0
		case time.Now().After(late):
			fmt.Fprintln(os.Stderr, found)
			return max(1, strings.Count(found.Error(), "[Goroutine "))
		}
	}
}

// tail keeps the last of what is written to it.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (w *tail) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("handler failed")) { // as it is asked to
		return len(b), nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, string(b))
	if most := 60; len(w.lines) > most {
		w.lines = w.lines[len(w.lines)-most:]
	}
	return len(b), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.lines, "")
}
