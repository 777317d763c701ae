package state_test

import (
	"os"
	"testing"

	"github.com/bannou-mesh/bannou/integration/servers"
)

func TestMain(m *testing.M) {
	if engine := os.Getenv(holderEngine); engine != "" {
		os.Exit(hold(engine, os.Getenv(holderAddress)))
	}
	if name := os.Getenv(writerName); name != "" {
		os.Exit(writeMoved(name, os.Getenv(writerFrom), os.Getenv(writerTo)))
	}
	os.Exit(servers.Main(m))
}
