package sagas_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	trips "github.com/bannou-mesh/bannou/integration/sagas"
	"github.com/bannou-mesh/bannou/integration/servers"
)

var (
	long = flag.Bool("long", false, "kill at every point, instead of at some")
	out  = flag.String("out", "", "the page to write the rows to; none by default")
	rows []trips.Row

	suiteRows []trips.SuiteRow
)

func TestMain(m *testing.M) {
	flag.Parse()
	if raw := os.Getenv(described); raw != "" {
		if err := runProcess(raw); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if raw := os.Getenv(servicesDescribed); raw != "" {
		if err := runServices(raw); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := servers.Main(m)
	for _, r := range rows {
		_, _ = fmt.Fprintln(os.Stdout, r)
	}
	for _, r := range suiteRows {
		_, _ = fmt.Fprintln(os.Stdout, r)
	}
	if *out != "" {
		if err := trips.WritePage(*out, rows, suiteRows); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
