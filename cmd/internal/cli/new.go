package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/cmd/internal/scaffold"
)

type newCommand struct {
	Service newServiceCommand `cmd:"" help:"Write a service with its events, handler, endpoint, test and program, as a module of this repository."`
}

type newServiceCommand struct {
	Name   string `arg:"" help:"Name of the service: lower-case letters and digits, with dashes between words."`
	Dir    string `type:"path" help:"Folder of its module, in the repository. Default: services/NAME."`
	DryRun bool   `name:"dry-run" help:"Say what would be written, and write nothing."`
}

func (c *newServiceCommand) Run(ctx context.Context, std *stdio) error {
	repository, err := scaffold.FindRepository(".")
	if err != nil {
		return usageError{err}
	}
	plan, err := scaffold.New(repository, c.Name, c.Dir, config.AllServices())
	if err != nil {
		return usageError{err}
	}
	if !c.DryRun {
		if err := plan.Write(); err != nil {
			return err
		}
		if err := tidy(ctx, filepath.Join(repository.Folder(), plan.Dir)); err != nil {
			return err
		}
	}
	var text strings.Builder
	for _, f := range plan.Files {
		text.WriteString(done(f, c.DryRun) + f.Path + "\n")
	}
	if !c.DryRun {
		fmt.Fprintf(&text, "\ntest it:  go test ./%[1]s/...\nrun it:   go run ./%[1]s/cmd/%[2]s --services all --app-id bannou\nread on:  %[1]s/README.md\n", plan.Dir, plan.Name)
	}
	_, err = fmt.Fprint(std.out, text.String())
	return err
}

// done says what is or would be done to a file.
func done(f scaffold.File, dry bool) string {
	switch {
	case dry && f.Changed:
		return "would change "
	case dry:
		return "would write  "
	case f.Changed:
		return "changed "
	default:
		return "wrote   "
	}
}

// tidy has Go write what the module needs besides what its files import, at the versions that the other modules have.
func tidy(ctx context.Context, folder string) error {
	command := exec.CommandContext(ctx, "go", "mod", "tidy")
	command.Dir = folder
	command.Env = append(os.Environ(), "GOWORK=off")
	out, err := command.CombinedOutput()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("the service is written, and go, which completes its go.mod, is not there: run `GOWORK=off go mod tidy` in %s", folder)
	case err != nil:
		return fmt.Errorf("the service is written, and its go.mod could not be completed: run `GOWORK=off go mod tidy` in %s: %w\n%s", folder, err, out)
	default:
		return nil
	}
}
