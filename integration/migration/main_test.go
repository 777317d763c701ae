package migration_test

import (
	"os"
	"testing"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// described is the variable that makes a process of this program a service.
const described = "STORY_SERVICE"

func TestMain(m *testing.M) {
	if service := os.Getenv(described); service != "" {
		os.Exit(runService(service))
	}
	os.Exit(servers.Main(m))
}
