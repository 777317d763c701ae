package state_test

import (
	"os"
	"testing"
	"time"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// patience is how long anything may take that has to happen in the end, on a machine that is busy with other things.
const patience = time.Minute

func TestMain(m *testing.M) {
	if engine := os.Getenv(holderEngine); engine != "" {
		os.Exit(hold(engine, os.Getenv(holderAddress)))
	}
	if name := os.Getenv(writerName); name != "" {
		os.Exit(writeMoved(name, os.Getenv(writerFrom), os.Getenv(writerTo)))
	}
	os.Exit(servers.Main(m))
}
