package migration_test

import (
	"fmt"
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
	os.Exit(run(m))
}

func run(m *testing.M) int {
	folder, err := os.MkdirTemp("", "bannou-story-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(folder) }()
	if err := buildBannou(folder); err != nil {
		fmt.Fprintln(os.Stderr, "build bannou:", err)
		return 1
	}
	return servers.Main(m)
}
