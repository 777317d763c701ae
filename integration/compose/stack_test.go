package compose

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The names of services in compose/*.yaml.
var (
	servers = []string{"rabbitmq", "redis", "mysql"}
	nodes   = map[string][]string{
		"one":   {"bannou"},
		"split": {"messaging", "state", "mesh", "events", "accounts", "auth", "permissions", "sagas", "game-session", "connect"},
	}
	// Those that the load goes through.
	loaded = map[string][]string{"one": nodes["one"], "split": {"messaging", "state", "mesh"}}
	// Those of which there are two, and that players need.
	doubled = map[string][]string{"split": {"accounts", "auth", "connect"}}
)

// patience is how long the suite may take to come up: RabbitMQ on a busy machine is the slowest.
const patience = 2 * time.Minute

// A stack is a Compose project.
type stack struct {
	command []string // that speaks of the project
	shape   string   // "one" or "split"
	nodes   []string // services that are nodes
	bases   []string // URLs of the nodes that callers reach

	gateways []string // and of those that players connect to
	token    string   // the mesh's
}

// newStack is the project that the environment names; without one, the test is skipped.
func newStack(t *testing.T) *stack {
	t.Helper()
	s := &stack{command: strings.Fields(os.Getenv("BANNOU_TEST_COMPOSE")), shape: os.Getenv("BANNOU_TEST_SHAPE")}
	if len(s.command) == 0 {
		t.Skip("BANNOU_TEST_COMPOSE names no Compose project; `make compose-test` sets it")
	}
	s.nodes = nodes[s.shape]
	require.NotEmpty(t, s.nodes, "BANNOU_TEST_SHAPE is %q", s.shape)
	s.bases = strings.Split(os.Getenv("BANNOU_TEST_NODE"), ",")
	s.gateways = strings.Split(os.Getenv("BANNOU_TEST_GATEWAY"), ",")
	token, err := os.ReadFile(os.Getenv("BANNOU_TEST_TOKEN_FILE"))
	require.NoError(t, err)
	s.token = strings.TrimSpace(string(token))
	return s
}

func execute(t *testing.T, command ...string) string {
	t.Helper()
	out, err := try(t, command...)
	require.NoError(t, err)
	return out
}

// try is execute for who expects a failure, or waits for success: require.Eventually waits on when its condition calls FailNow.
func try(t *testing.T, command ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var errs strings.Builder
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, &errs)
	}
	return strings.TrimSpace(string(out)), err
}

func (s *stack) compose(t *testing.T, args ...string) string {
	t.Helper()
	return execute(t, append(append([]string{}, s.command...), args...)...)
}

// A container is what Docker says of one.
type container struct {
	ID           string `json:"Id"`
	Name         string
	RestartCount int
	State        struct {
		Status   string
		ExitCode int
		Health   struct{ Status string }
	}
}

// containers are those of a service, stopped ones included.
func (s *stack) containers(t *testing.T, service string) []container {
	t.Helper()
	ids := strings.Fields(s.compose(t, "ps", "--all", "--quiet", service))
	if len(ids) == 0 {
		return nil
	}
	var all []container
	require.NoError(t, json.Unmarshal([]byte(execute(t, append([]string{"docker", "inspect"}, ids...)...)), &all))
	return all
}

// healthy reports whether a service has containers, all in good health.
func (s *stack) healthy(t *testing.T, service string) bool {
	t.Helper()
	all := s.containers(t, service)
	for _, c := range all {
		if c.State.Health.Status != "healthy" {
			return false
		}
	}
	return len(all) > 0
}
