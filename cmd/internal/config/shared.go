package config

import (
	"slices"

	"github.com/alecthomas/kong"
)

// SharedFile is the flag that names the nodes' YAML file for a command that needs some of their settings. It leaves the others alone.
type SharedFile string

// BeforeResolve reads the file, as that of File does.
func (SharedFile) BeforeResolve(ctx *kong.Context, trace *kong.Path) error {
	name := string(ctx.FlagValue(trace.Flag).(SharedFile))
	if name == "" || !slices.Contains(ctx.Flags(), trace.Flag) { // as File's
		return nil
	}
	values, err := read(name)
	if err == nil {
		fill(ctx, name, values)
	}
	return err
}

// Stores reads the stores of the YAML file; none when no file is named.
func (f SharedFile) Stores() (map[string]Store, error) { return File(f).Stores() }
