package sagas_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	trips "github.com/bannou-mesh/bannou/integration/sagas"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/sagas"
)

// described is the environment variable with what a process of the saga needs to know, an order.
const described = "BANNOU_SAGAS_PROCESS"

// An order says what a process runs, and where it ends.
type order struct {
	DSN, Table, Rabbit, Hotel, Prefix string
	Key                               string // of the instance that it is killed at
	Point                             point
}

// lease is how long the work of a killed process is left alone. It is longer than the machine may be too busy to renew it.
const lease = 400 * time.Millisecond

// openLog opens the log that an order names.
func openLog(o order) (*eventstore.Store, func() error, error) {
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: o.DSN})
	if err != nil {
		return nil, nil, err
	}
	log, err := mysqlevents.Open(driver, eventstore.Config{Table: o.Table})
	return log, driver.Close, err
}

// runProcess is the process of the saga. It says when it takes messages, and runs until it is killed.
func runProcess(raw string) error {
	var o order
	if err := json.Unmarshal([]byte(raw), &o); err != nil {
		return err
	}
	log, _, err := openLog(o)
	if err != nil {
		return err
	}
	driver, err := rabbitbus.New(rabbitbus.Config{URLs: []string{o.Rabbit}})
	if err != nil {
		return err
	}
	k := &killer{key: []byte(o.Key), point: o.Point}
	k.armed.Store(true)
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	b, err := bus.New(deadlyBus{driver, k}, bus.Config{Logger: logger})
	if err != nil {
		return err
	}
	saga, err := trips.Definition(o.Prefix).Build()
	if err != nil {
		return err
	}
	engine, err := sagas.New(sagas.Config{
		Store: eventstore.New(deadlyLog{log.Engine(), k}, eventstore.Config{Logger: logger}), Bus: b, Caller: deadlyCaller{hotel{o.Hotel}, k},
		Sagas: []*sagas.Saga{saga}, Lease: lease, Poll: 20 * time.Millisecond, Logger: logger,
	})
	if err != nil {
		return err
	}
	ctx := context.Background()
	ran := make(chan error, 2)
	go func() { ran <- b.Run(ctx) }()
	go func() { ran <- engine.Run(ctx) }()
	<-b.Running()
	awaitQueues(ctx, b)
	_, _ = fmt.Fprintln(os.Stdout, "running")
	return <-ran
}

// awaitQueues returns when every queue of a bus that runs is there. Where the machine is too busy for a queue to be had in the time that Run
// waits for one, a bus runs before, and what is published then is nowhere.
func awaitQueues(ctx context.Context, b *bus.Bus) {
	for b.Ready(ctx) != nil && ctx.Err() == nil {
		pause(ctx, 10*time.Millisecond)
	}
}

// hotel calls a server of the test as the mesh calls a service.
type hotel struct{ url string }

func (h hotel) Call(ctx context.Context, _, method, key string, body jsontext.Value) (jsontext.Value, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url+"/"+method, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Idempotency-Key", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// A process is one of the saga.
type process struct {
	cmd    *exec.Cmd
	orders io.Writer     // its standard input
	says   *bufio.Reader // its standard output
	ended  chan error
}

// startProcess returns when it takes messages, or has been killed before.
func startProcess(t *testing.T, o order) *process { return startAs(t, described, o) }

// startAs starts this program once more, as what an environment variable describes.
func startAs(t *testing.T, variable string, description any) *process {
	raw, err := json.Marshal(description)
	require.NoError(t, err)
	program, err := os.Executable()
	require.NoError(t, err)
	p := &process{cmd: exec.CommandContext(t.Context(), program), ended: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), variable+"="+string(raw))
	p.cmd.Stderr = os.Stderr
	p.orders, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	p.says = bufio.NewReader(out)
	_, err = p.says.ReadString('\n')
	go func() { p.ended <- p.cmd.Wait() }()
	require.NoError(t, err, "the process ended before it was told to do anything")
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// line is the next one that the process says.
func (p *process) line(t *testing.T) string {
	said, err := p.says.ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(said)
}
