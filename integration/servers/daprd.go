package servers

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// DaprdServer is one sidecar of Dapr.
type DaprdServer struct {
	*Server

	// URL is its HTTP API, http://127.0.0.1:port.
	URL string
	// HTTPPort and GRPCPort are where its two APIs listen.
	HTTPPort, GRPCPort int
}

// DaprdOptions configures a sidecar.
type DaprdOptions struct {
	// AppID is the app that it stands beside. Default: "app".
	AppID string
	// AppPort is where the app listens on 127.0.0.1; the sidecar is not ready before somebody does. 0: there is no app.
	AppPort int
	// AppProtocol is what the app speaks. Default: http.
	AppProtocol string
	// Resources are the YAML documents of its components and subscriptions.
	Resources []string
	// Begin is told the ports of its APIs before it starts, for an app that waits for it while it waits for the app. Default: nobody is.
	Begin func(httpPort, grpcPort int)
	// Args are added to its command line.
	Args []string
	// Env is added to its environment, as NAME=value.
	Env []string
}

func daprdProduct() product { return product{name: "daprd"} }

// NewDaprd starts a sidecar that this test may kill, pause and restart, and closes it when the test is over. The test is skipped where 'make daprd'
// has not built one.
func NewDaprd(t testing.TB, o DaprdOptions) *DaprdServer {
	t.Helper()
	program := NeedDaprd(t)
	return own(t, daprdProduct(), o, func(ctx context.Context, o DaprdOptions) (*DaprdServer, error) { return startDaprd(ctx, program, o) })
}

// NeedDaprd is the program of a sidecar; without one the test is skipped. A test that starts its sidecar in a goroutine of its own asks first.
func NeedDaprd(t testing.TB) (program string) {
	t.Helper()
	program, found := findDaprd()
	if !found {
		SkipAloud(t, "what compares with Dapr was skipped, because there is no daprd here: 'make daprd' builds one from the module that tools/daprd pins, which takes minutes")
	}
	return program
}

func startDaprd(ctx context.Context, program string, o DaprdOptions) (*DaprdServer, error) {
	server, ports, err := launch(ctx, plan{
		product: daprdProduct(),
		ports:   3,
		prepare: func(_ context.Context, f *folder, ports []int) ([]command, error) {
			if err := o.write(f); err != nil {
				return nil, err
			}
			if o.Begin != nil {
				o.Begin(ports[0], ports[1])
			}
			return []command{{name: "daprd", path: program, args: o.args(f, ports), env: environment(f.path, o.Env...)}}, nil
		},
		probe: func(ctx context.Context, ports []int) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+local(ports[0])+"/v1.0/healthz", nil)
			if err != nil {
				return err
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return err
			}
			if err := response.Body.Close(); err != nil {
				return err
			}
			if response.StatusCode != http.StatusNoContent {
				return fmt.Errorf("it answers %s", response.Status)
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return &DaprdServer{Server: server, URL: "http://" + local(ports[0]), HTTPPort: ports[0], GRPCPort: ports[1]}, nil
}

// write puts the resources into files of their own.
func (o DaprdOptions) write(f *folder) error {
	if err := os.Mkdir(f.file("resources"), 0o700); err != nil {
		return err
	}
	for i, document := range o.Resources {
		if err := os.WriteFile(filepath.Join(f.file("resources"), strconv.Itoa(i)+".yaml"), []byte(document), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// args are those of a sidecar that needs nothing but its app: no control plane, no metrics, nothing beyond loopback.
func (o DaprdOptions) args(f *folder, ports []int) []string {
	appID := o.AppID
	if appID == "" {
		appID = "app"
	}
	args := []string{
		"--app-id", appID, "--dapr-http-port", strconv.Itoa(ports[0]), "--dapr-grpc-port", strconv.Itoa(ports[1]),
		"--dapr-internal-grpc-port", strconv.Itoa(ports[2]), "--dapr-listen-addresses", "127.0.0.1", "--resources-path", f.file("resources"),
		"--placement-host-address", "", "--enable-metrics=false", "--log-level", "warn",
	}
	if o.AppPort != 0 {
		args = append(args, "--app-port", strconv.Itoa(o.AppPort))
	}
	if o.AppProtocol != "" {
		args = append(args, "--app-protocol", o.AppProtocol)
	}
	return append(args, o.Args...)
}

// findDaprd finds what tools/install-daprd has built.
func findDaprd() (string, bool) {
	for folder, err := os.Getwd(); err == nil; folder = filepath.Dir(folder) {
		if _, err := os.Stat(filepath.Join(folder, "go.work")); err == nil {
			return executable(nil, []string{filepath.Join(folder, ".bin", "daprd-*", "daprd")}, nil)
		}
		if folder == filepath.Dir(folder) {
			break
		}
	}
	return "", false
}
