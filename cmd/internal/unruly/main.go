// Command unruly is bannou with a bus on which messages come twice, late, and in another order than they were sent. The end-to-end tests run on
// it. What it does is what the bus says may happen; it loses nothing.
package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/bannou-mesh/bannou/cmd/internal/cli"
	"github.com/bannou-mesh/bannou/cmd/internal/node"
	"github.com/bannou-mesh/bannou/pkg/bus"
)

const (
	doubled = 0.3                   // the share of deliveries that come twice
	late    = 40 * time.Millisecond // how much later than they would they come at most
)

func main() {
	seed := rand.Uint64() //nolint:gosec // chance, no secret
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		fmt.Fprintln(os.Stderr, "unruly, with seed", seed)
	}
	chance := &chance{source: rand.New(rand.NewPCG(seed, 0))} //nolint:gosec // as above
	o := node.Options{Broker: func(d bus.Driver) bus.Driver { return unruly{d, chance} }}
	os.Exit(cli.MainWith(o, os.Args[1:], "unruly", os.Stdin, os.Stdout, os.Stderr))
}
