// Command bannou is every service of Bannou and the client for daily use: `bannou serve` runs a node, the other commands
// talk to one.
package main

import (
	"os"

	"github.com/bannou-mesh/bannou/cmd/internal/cli"
)

// version is set by the linker.
var version = "devel"

func main() {
	os.Exit(cli.Main(os.Args[1:], version, os.Stdin, os.Stdout, os.Stderr))
}
