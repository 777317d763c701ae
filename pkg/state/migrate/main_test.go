package migrate

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Most tests wait for leases and pauses to end, and can do that together on any machine.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "20"); err != nil {
		os.Exit(2)
	}
	goleak.VerifyTestMain(m)
}
