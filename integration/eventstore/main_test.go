package eventstore_test

import (
	"os"
	"testing"

	"github.com/bannou-mesh/bannou/integration/servers"
)

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }
