// Command gotest runs go test, and says last what failed.
//
//	gotest [-failures FILE] [-again N [-never REGEXP] [-alone FILE]] go -C pkg/bus test -race ./...
//
// It prints a line for each package when its tests are over, and what is no test's: what could not be built. When all have ended it prints
// of each test that failed what that test said, innermost tests only, and of a package without one what it said itself. What those that
// passed have printed is nowhere, whoever printed it. With FILE it adds that to the file instead, for who runs it several times.
//
// With -again, up to N tests that failed beside others are run once more, each by itself: see chances. When all of them pass then, go test
// has passed. What they said the first time is told all the same, with a line for each, which is also added to the file that -alone names:
//
//	=== PASSED ONLY ALONE: github.com/bannou-mesh/bannou/pkg/bus TestClose
//
// Its exit status is that of go test.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
)

// options are those of gotest itself.
type options struct {
	failures string         // the file that what failed is added to; without one it is printed
	again    int            // how many tests may have a second chance, at most; by default none
	never    *regexp.Regexp // those that may not, by name or by what they said; nil: there are no such
	alone    string         // the file that a line is added to for each test that passed only alone; without one it is only told
}

func main() {
	var o options
	flags := flag.NewFlagSet("gotest", flag.ExitOnError)
	flags.StringVar(&o.failures, "failures", "", "a `file` that what failed is added to")
	flags.IntVar(&o.again, "again", 0, "run up to so many tests that failed once more, each by itself; go test's flags are then of the form -name=value, "+
		"and before the packages")
	flags.Func("never", "a `regexp` of what has no second chance: package and name, such as \"example.com/m TestOuter/bad\", or what it said", func(s string) (err error) {
		o.never, err = regexp.Compile(s)
		return err
	})
	flags.StringVar(&o.alone, "alone", "", "a `file` that a line is added to for each test that passed only alone")
	_ = flags.Parse(os.Args[1:]) // ends the program when it fails
	// Interrupted, go test ends by itself, as it is of the same process group; what failed by then is told.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status, err := o.run(ctx, flags.Args(), os.Stdout, os.Stderr)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "gotest:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

// run returns the exit status of the command, or 0 when all that failed passed alone. When the context has ended, nothing has a second chance.
func (o options) run(ctx context.Context, command []string, stdout, stderr io.Writer) (int, error) {
	if slices.Index(command, "test") < 1 {
		return 2, errors.New("say which go test to run, such as: gotest go test ./pkg")
	}
	if value := misplaced(command); o.again > 0 && value != "" {
		return 2, fmt.Errorf("%q is before a flag: with -again, write go test's flags as -name=value, and the packages last", value)
	}
	report, status, err := execute(ctx, command, stdout, stderr)
	if status == 0 || report == nil {
		return status, err
	}
	var told bytes.Buffer
	report.failures(&told)
	if err == nil && o.again > 0 && ctx.Err() == nil {
		var passed bool
		if passed, err = o.secondChance(ctx, command, report, &told, stdout, stderr); passed {
			status = 0
		}
	}
	return status, errors.Join(err, tell(told.Bytes(), o.failures, stdout))
}

// execute runs go test, and returns what it has said and its exit status.
func execute(ctx context.Context, command []string, stdout, stderr io.Writer) (*report, int, error) {
	at := slices.Index(command, "test")
	// It ends by itself: see main.
	c := exec.CommandContext(context.WithoutCancel(ctx), command[0], slices.Insert(slices.Clone(command[1:]), at, "-json")...) //nolint:gosec // it runs what it is told to
	c.Stderr = stderr
	events, err := c.StdoutPipe()
	if err != nil {
		return nil, 1, err
	}
	if err := c.Start(); err != nil {
		return nil, 1, err
	}
	report, reading := follow(events, stdout)
	err = c.Wait()
	if failed, is := errors.AsType[*exec.ExitError](err); is && failed.ExitCode() > 0 {
		err = nil
	}
	return report, c.ProcessState.ExitCode(), errors.Join(reading, err)
}

// tell adds a text to the file, or where there is none writes it to out.
func tell(text []byte, file string, out io.Writer) error {
	if file == "" {
		_, err := out.Write(text)
		return err
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
