// Command gotest runs go test, and says last what failed.
//
//	gotest [-failures FILE] go -C pkg/bus test ./...
//
// It prints a line for each package when its tests are over, and what is no test's: what could not be built. When all have ended it prints
// of each test that failed what that test said, innermost tests only, and of a package without one what it said itself. What those that
// passed have printed is nowhere, whoever printed it. With FILE it adds that to the file instead, for who runs it several times.
//
// Its exit status is that of go test.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
)

func main() {
	flags := flag.NewFlagSet("gotest", flag.ExitOnError)
	failures := flags.String("failures", "", "a `file` that what failed is added to")
	_ = flags.Parse(os.Args[1:]) // ends the program when it fails
	// Interrupted, go test ends by itself, as it is of the same process group; what failed by then is told.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM)
	status, err := run(context.Background(), flags.Args(), *failures, os.Stdout, os.Stderr)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "gotest:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

// run returns the exit status of the command.
func run(ctx context.Context, command []string, failures string, stdout, stderr io.Writer) (int, error) {
	at := slices.Index(command, "test")
	if at < 1 {
		return 2, errors.New("say which go test to run, such as: gotest go test ./pkg")
	}
	c := exec.CommandContext(ctx, command[0], slices.Insert(command[1:], at, "-json")...) //nolint:gosec // it runs what it is told to
	c.Stderr = stderr
	events, err := c.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := c.Start(); err != nil {
		return 1, err
	}
	report, reading := follow(events, stdout)
	err = c.Wait()
	if failed, is := errors.AsType[*exec.ExitError](err); is && failed.ExitCode() > 0 {
		err = nil
	}
	status := c.ProcessState.ExitCode()
	if status != 0 {
		err = errors.Join(err, tell(report, failures, stdout))
	}
	return status, errors.Join(reading, err)
}

// tell writes what failed to the file, or where there is none to out.
func tell(r *report, file string, out io.Writer) error {
	if file == "" {
		return r.failures(out)
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(r.failures(f), f.Close())
}
