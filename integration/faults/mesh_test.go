package faults_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/integration/link"
	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// A meshFault is a harm that is done to a mesh under load.
type meshFault struct {
	name  string
	times int // how often a long run does it; a quick one does it once
	// harm returns when it is over. What it has killed it replaces.
	harm func(ctx context.Context, r *meshRun) error
	// check is what else must be true in the end; may be nil.
	check func(t *testing.T, totals faults.MeshTotals)
	// patient attempts have the whole time of their call.
	patient bool
}

// policy is what the caller does about failures: a little more than by default, and sooner.
func (f *meshFault) policy() mesh.Policy {
	p := mesh.Policy{AttemptTimeout: faults.AttemptTimeout, Retry: mesh.Retry{Statuses: []int{500, 502, 503, 504}}}
	if f.patient {
		p.AttemptTimeout = 0
	}
	return p
}

// A meshRun is one fault's.
type meshRun struct {
	*fleet
	*caller
	ledger *faults.MeshLedger
	load   *faults.MeshLoad
}

// A caller is a program that calls: a link to the servers, a directory and a client.
type caller struct {
	link        *link.Link
	directory   *mesh.Directory
	client      *mesh.Client
	idle        func()       // closes connections that are kept
	connections atomic.Int64 // open ones
	end         context.CancelFunc
	ran         chan error
}

// newCaller returns when it knows the mesh.
func newCaller(ctx context.Context, s link.Servers, policy mesh.Policy, log *slog.Logger) (*caller, error) {
	l, err := link.Open(s, "caller", log)
	if err != nil {
		return nil, err
	}
	c := &caller{link: l, ran: make(chan error, 1), directory: mesh.NewDirectory(l.Registry, l.Feed, mesh.DirectoryConfig{Logger: log, RefreshInterval: 2 * time.Second})}
	transport := mesh.NewTransport()
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return counted(conn, &c.connections), nil
	}
	c.idle = transport.CloseIdleConnections
	// Quicker than a node's, so that a run sees them begin and end.
	if c.client, err = mesh.NewClient(mesh.ClientConfig{Directory: c.directory, Transport: faults.CountAttempts(transport), Logger: log, Policy: policy,
		SlowStart: 200 * time.Millisecond, Ejection: mesh.Ejection{Time: 300 * time.Millisecond, MaxTime: time.Second, Window: 2 * time.Second}}); err != nil {
		return nil, err
	}
	life, end := context.WithCancel(context.Background())
	c.end = end
	go func() { c.ran <- c.directory.Run(life) }()
	select {
	case <-c.directory.Running():
		return c, nil
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), c.close(context.WithoutCancel(ctx)))
	}
}

// close ends what newCaller began.
func (c *caller) close(ctx context.Context) error {
	c.client.Close()
	c.idle()
	c.end()
	return errors.Join(<-c.ran, c.link.Close(ctx))
}

// knows reports whether the caller may send requests to an instance.
func (c *caller) knows(in *instance) bool {
	return slices.ContainsFunc(c.directory.Endpoints(in.AppID), func(e *mesh.Endpoint) bool { return e.InstanceID == in.InstanceID })
}

// endureMesh puts a mesh under load, harms it, and holds it to its promises.
func endureMesh(t *testing.T, f *fleet, fault meshFault) {
	existing := goleak.IgnoreCurrent()
	row := faults.MeshRow{Fault: fault.name, Bus: f.busName, Times: 1, Seed: *seed}
	if *long {
		row.Times = fault.times
	}
	log := new(tail)
	r := startCalls(t, f, fault.policy(), slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn})))
	defer func() {
		row.MeshTotals, row.Failing = r.ledger.Totals(), t.Failed()
		rows.Mesh = append(rows.Mesh, row)
		t.Logf("seed %d: %+v", *seed, row.MeshTotals)
		if t.Failed() {
			t.Logf("%s\nlast words of the caller:\n%s", lines(r.ledger.Remarks()), log)
			for _, in := range f.instances {
				t.Logf("last words of %s:\n%s", in.InstanceID, in.log)
			}
		}
	}()

	end := r.call()
	defer end()
	r.settled(t, 300)
	for range row.Times {
		require.NoError(t, fault.harm(within(t, patience), r))
		r.settled(t, 200)
	}
	end()
	for _, in := range f.instances {
		require.NoError(t, in.sync(within(t, patience)))
	}
	require.NoError(t, r.caller.close(within(t, patience)))
	row.Connections, row.Goroutines = r.left(t)
	row.Goroutines += leaked(existing, goleak.IgnoreAnyFunction(listenFunction), goleak.IgnoreAnyFunction("os/exec.(*Cmd).writerDescriptor.func1"))
	assert.Zero(t, row.Goroutines, "goroutines left")
	assert.Zero(t, row.Connections, "connections left")
	hold(t, r.ledger.Totals())
	if fault.check != nil {
		fault.check(t, r.ledger.Totals())
	}
}

// listenFunction is what reads the output of an instance, for as long as that lives.
const listenFunction = "github.com/bannou-mesh/bannou/integration/faults_test.(*instance).listen"

// hold holds a mesh to what it promises in every case.
func hold(t *testing.T, totals faults.MeshTotals) {
	t.Helper()
	assert.Zero(t, totals.Failed, "calls that may be made twice, had time, and failed")
	assert.Zero(t, totals.Wrong, "calls that reached the wrong app-id")
	assert.Zero(t, totals.Twice, "calls that must not be made twice, and were")
	assert.Zero(t, totals.Late, "calls that returned later than their deadline")
}

// startCalls makes a caller whose mappings are those that every fault begins with.
func startCalls(t *testing.T, f *fleet, policy mesh.Policy, log *slog.Logger) *meshRun {
	ctx := within(t, patience)
	c, err := newCaller(ctx, f.servers, policy, log)
	require.NoError(t, err)
	r := &meshRun{fleet: f, caller: c, ledger: faults.NewMeshLedger()}
	r.load = &faults.MeshLoad{Client: c.client, Directory: c.directory, Targets: []string{"work", "play", "alpha", "beta"}, Ledger: r.ledger, Seed: *seed}
	f.ledger.Store(r.ledger)
	require.NoError(t, r.bury(ctx))
	require.NoError(t, r.mapTo(ctx, "alpha", "beta"))
	for _, in := range f.instances {
		require.NoError(t, r.until(ctx, func() bool { return c.knows(in) }, "the caller knows "+in.InstanceID))
	}
	return r
}

// bury takes those out of the registry that earlier faults have killed: none has to bear what another did.
func (r *meshRun) bury(ctx context.Context) error {
	all, err := r.link.Registry.List(ctx, true)
	for _, e := range all {
		if r.instances[e.InstanceID] == nil {
			_, gone := r.link.Registry.Deregister(ctx, e.AppID, e.InstanceID)
			err = errors.Join(err, gone)
		}
	}
	return err
}

// mapTo says where the services are, and returns when the caller knows it.
func (r *meshRun) mapTo(ctx context.Context, work, play string) error {
	m, err := r.link.Registry.SetMappings(ctx, map[string]string{"work": work, "play": play}, "")
	if err != nil {
		return err
	}
	r.ledger.Mapped(m)
	return r.until(ctx, func() bool { return r.directory.Mappings().Version >= m.Version }, "the caller knows the mappings")
}

// call begins the load. The returned function ends it, and waits for the last call.
func (r *meshRun) call() (end func()) {
	ctx, stop := context.WithCancel(context.Background())
	var calls sync.WaitGroup
	calls.Go(func() { r.load.Call(ctx) })
	return sync.OnceFunc(func() { stop(); calls.Wait() })
}

// settled waits until so many more calls have succeeded.
func (r *meshRun) settled(t *testing.T, more int) {
	t.Helper()
	before := r.ledger.Settled()
	require.Eventually(t, func() bool { return r.ledger.Settled() >= before+more }, patience, time.Millisecond, "calls succeed")
}

// until waits for what nobody announces.
func (r *meshRun) until(ctx context.Context, condition func() bool, what string) error {
	for !condition() {
		if err := faults.Pause(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// answers waits until an instance has answered another few calls.
func (r *meshRun) answers(ctx context.Context, in *instance) error {
	before := r.ledger.AnsweredBy(in.InstanceID)
	return r.until(ctx, func() bool { return r.ledger.AnsweredBy(in.InstanceID) >= before+5 }, in.InstanceID+" answers calls")
}

// left waits for the end of what a caller that has closed may leave for a moment, and counts the rest.
func (r *meshRun) left(t *testing.T) (connections, goroutines int) {
	ctx := within(t, patience)
	look := func() (connections, goroutines int, err error) {
		connections = int(r.connections.Load())
		for _, in := range r.instances {
			c, g, lost := in.left(ctx)
			connections, goroutines, err = connections+c, goroutines+g, errors.Join(err, lost)
		}
		return connections, goroutines, err
	}
	for begun := time.Now(); ; {
		connections, goroutines, err := look()
		require.NoError(t, err)
		if connections+goroutines == 0 || time.Since(begun) > patience/2 {
			return connections, goroutines
		}
		require.NoError(t, faults.Pause(ctx, 5*time.Millisecond))
	}
}

func lines(all []string) (text string) {
	for _, line := range all {
		text += line + "\n"
	}
	return text
}
