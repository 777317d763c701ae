package faults_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
	"github.com/bannou-mesh/bannou/services/connect"
	"github.com/bannou-mesh/bannou/services/host"
)

// The environment of a gateway that runs as a process of its own, this binary once more.
const (
	gatewayBroker = "BANNOU_FAULTS_GATEWAY_BROKER"
	gatewayStore  = "BANNOU_FAULTS_GATEWAY_STORE"
)

// everybody is an auth service to which a session's id is its token.
type everybody struct{}

func (everybody) Validate(_ context.Context, token string) (connect.Login, error) {
	return connect.Login{SessionID: token, AccountID: token}, nil
}

// nobody is a mesh without services.
type nobody struct{}

func (nobody) Do(context.Context, string, *http.Request) (*http.Response, error) {
	return nil, errors.New("there is no service")
}

// serveGateway is the process of a gateway. It says where it is, and ends when nobody holds its input any more.
func serveGateway(broker, store string) int {
	if err := runGateway(broker, store); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runGateway(broker, store string) error {
	records, err := redisstate.New(redisstate.Config{URLs: []string{store}})
	if err != nil {
		return err
	}
	factory, err := state.NewFactory([]state.StoreConfig{{Name: connect.SessionStore, Backend: "redis"}}, []state.Driver{records}, state.Options{})
	if err != nil {
		return err
	}
	driver, err := rabbitbus.New(rabbitbus.Config{URLs: []string{broker}})
	if err != nil {
		return err
	}
	b, err := bus.New(driver, bus.Config{})
	if err != nil {
		return err
	}
	service, err := connect.New(connect.Config{
		Factory: factory, Bus: b, Broker: driver, Caller: nobody{}, Auth: everybody{}, InstanceID: "gateway",
		PingInterval: time.Hour, HandshakeTimeout: patience, // a client of the test does not always read
	})
	if err != nil {
		return err
	}
	h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
	if err == nil {
		err = h.Add(service)
	}
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 2)
	go func() { ran <- b.Run(ctx) }()
	go func() { ran <- h.Run(ctx) }()
	<-h.Started()
	for service.Ready(ctx) != nil {
		select {
		case err := <-ran:
			stop()
			return errors.Join(err, errors.New("the gateway ended before it was ready"))
		case <-time.After(pollPeriod):
		}
	}
	_, _ = fmt.Fprintln(os.Stdout, "http://"+h.Addr().String())
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	stop()
	return errors.Join(<-ran, <-ran, driver.Close(context.Background()), factory.Close())
}

// A gatewayProcess is one as its parent sees it.
type gatewayProcess struct {
	url string
	pid int
}

func startGateway(t *testing.T, broker, store string) gatewayProcess {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), os.Args[0])
	cmd.Env = append(os.Environ(), gatewayBroker+"="+broker, gatewayStore+"="+store)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	outPipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // what its clients have not acknowledged is of no use to anybody
		_ = in.Close()
		_ = cmd.Wait()
	})
	url, err := bufio.NewReader(outPipe).ReadString('\n')
	require.NoError(t, err)
	return gatewayProcess{strings.TrimSpace(url), cmd.Process.Pid}
}

// memory is what the process has of the machine's, in bytes; 0 where nobody tells.
func (g gatewayProcess) memory() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kilobytes, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, _ := strconv.ParseInt(kilobytes, 10, 64)
	return n << 10
}
