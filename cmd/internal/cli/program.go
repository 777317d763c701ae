package cli

import (
	"fmt"
	"io"
	"slices"

	"github.com/alecthomas/kong"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/cmd/internal/node"
)

// programCommands are those of a program with a service of its own.
type programCommands struct {
	Serve  serveCommand  `cmd:"" default:"withargs" help:"Run a node with the program's service."`
	Health healthCommand `cmd:"" help:"Say whether the node is ready; for health checks of containers."`
}

// Program is Main for a program that has a service of its own. It is named for the service, and runs nothing else unless it is told to.
func Program(own *node.Own, args []string, version string, in io.Reader, out, errw io.Writer) int {
	if slices.Contains(config.AllServices(), own.Name) {
		return report(errw, usageError{fmt.Errorf("the suite has a service called %q: give the program's another name", own.Name)})
	}
	return run(new(programCommands), node.Options{Own: own}, args, version, &stdio{in, out, errw},
		kong.Name(own.Name),
		kong.Description("A service beside those of Bannou, on a node of its own in their mesh. Its settings are those of `bannou serve`."),
		kong.PostBuild(func(k *kong.Kong) error { return defaults(k, own.Name) }),
	)
}

// defaults are those settings of a node whose default names the program.
func defaults(k *kong.Kong, name string) error {
	values := map[string]string{"services": name, "app-id": name, "data-dir": "./.bannou/" + name}
	for _, leaf := range k.Model.Leaves(false) {
		if leaf.Name != "serve" {
			continue
		}
		for _, f := range leaf.Flags {
			if v, ok := values[f.Name]; ok {
				f.Default = v
			}
		}
	}
	return nil
}
