package eventstore_test

import (
	"os"
	"testing"
	"time"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// Variables that make of the test binary one of the processes that append.
const (
	processDSN  = "BANNOU_TEST_EVENTS_DSN"
	processWork = "BANNOU_TEST_EVENTS_WORK" // "gaps", or a way of appending and the number of its writers
)

// patience is how long anything may take that has to happen in the end, on a machine that is busy with other things.
const patience = time.Minute

func TestMain(m *testing.M) {
	if dsn := os.Getenv(processDSN); dsn != "" {
		os.Exit(work(dsn, os.Getenv(processWork)))
	}
	os.Exit(servers.Main(m))
}
