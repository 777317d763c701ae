package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bannou-mesh/bannou/tools/eventgen/internal/gocode"
	"github.com/bannou-mesh/bannou/tools/eventgen/internal/schema"
)

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

// run is main with its surroundings given to it: 0 done, 1 wrong schemas or stale code, 2 wrong arguments.
func run(args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("eventgen", flag.ContinueOnError)
	flags.SetOutput(stderr)
	schemas := flags.String("schemas", "schemas", "folder of the schemas, one .yaml file for each owner")
	out := flags.String("out", ".", "folder of the Go package to write")
	pkg := flags.String("package", gocode.Events, "name of that package; one that is not events is of a module with events of its own")
	check := flags.Bool("check", false, "write nothing; fail if the generated code is not what the schemas give")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		_, _ = fmt.Fprintf(stderr, "eventgen takes no arguments besides its flags, got %q\n", flags.Args())
		return 2
	}
	if err := generate(*schemas, *out, *pkg, *check); err != nil {
		_, _ = fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func generate(schemas, out, pkg string, check bool) error {
	if !token.IsIdentifier(pkg) {
		return fmt.Errorf("-package %q is no name of a Go package", pkg)
	}
	set, err := schema.Read(os.DirFS(schemas), label(schemas))
	if err != nil {
		return err
	}
	files, err := gocode.Generate(set, pkg)
	if err != nil {
		return err
	}
	stale, err := staleFiles(out, files)
	if err != nil {
		return err
	}
	if check {
		return compare(out, files, stale)
	}
	return write(out, files, stale)
}

// label is how messages and generated files call the folder of the schemas: by its own name, wherever it was reached from.
func label(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return filepath.Base(dir)
	}
	return filepath.Base(abs)
}

// staleFiles returns the paths of files in out that eventgen wrote and would not write any more.
func staleFiles(out string, files map[string][]byte) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(out, "*.gen.go"))
	if err != nil {
		return nil, fmt.Errorf("list the generated files in %s: %w", out, err)
	}
	return slices.DeleteFunc(paths, func(path string) bool {
		_, current := files[filepath.Base(path)]
		content, err := os.ReadFile(path)
		return current || err != nil || !bytes.HasPrefix(content, []byte(gocode.Marker))
	}), nil
}

func write(out string, files map[string][]byte, stale []string) error {
	for _, name := range names(files) {
		path := filepath.Join(out, name)
		if content, err := os.ReadFile(path); err == nil && bytes.Equal(content, files[name]) {
			continue // builds are cached by time of change too
		}
		if err := os.WriteFile(path, files[name], 0o644); err != nil { //nolint:gosec // source code is for everyone to read
			return fmt.Errorf("write generated code: %w", err)
		}
	}
	for _, path := range stale {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove stale generated code: %w", err)
		}
	}
	return nil
}

func compare(out string, files map[string][]byte, stale []string) error {
	var wrong []string
	for _, name := range names(files) {
		path := filepath.Join(out, name)
		content, err := os.ReadFile(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			wrong = append(wrong, path+" is missing")
		case err != nil:
			wrong = append(wrong, err.Error())
		case !bytes.Equal(content, files[name]):
			wrong = append(wrong, path+" is not what the schemas give")
		}
	}
	for _, path := range stale {
		wrong = append(wrong, path+" has no schema any more")
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n") + "\nrun make generate, and commit what it writes")
	}
	return nil
}

func names(files map[string][]byte) []string {
	all := make([]string, 0, len(files))
	for name := range files {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}
