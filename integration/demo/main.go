// Command demo shows what a mesh does when a node dies: three nodes, each a process of the real binary, answer calls that may be made
// twice; one is killed in the middle of it, another joins, and no call fails. `make demo-mesh` runs it.
//
// It exits with 0 when every call was answered, with 1 when one was not or something could not be started, and with 130 when it was
// interrupted. Whatever way it ends, everything that it started ends too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	var d demonstration
	flag.StringVar(&d.binary, "binary", "bin/bannou", "the program that nodes run")
	flag.IntVar(&d.nodes, "nodes", 3, "nodes to begin with, 1 to 8; with one, nobody is left when it is killed, and calls fail")
	flag.DurationVar(&d.act, "act", 4*time.Second, "length of each of the three acts: all nodes, one killed, another joined")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	d.out = newScreen(os.Stdout)
	err := d.run(ctx)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case d.left != nil:
		fmt.Fprintln(os.Stderr, "demo: something may be left running:", d.left)
		os.Exit(1)
	case interrupted:
		d.out.line("\n  Interrupted. Everything that was started has ended.")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// errFailed reports that calls failed that should not have.
var errFailed = errors.New("not every call was answered")
