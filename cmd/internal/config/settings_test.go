package config_test

import (
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
)

var update = flag.Bool("update", false, "write docs/settings.md anew")

const (
	settingsPage  = "../../../docs/settings.md"
	settingsBegin = "<!-- settings: written by go -C cmd test ./internal/config -run TestSettingsPage -update -->\n"
	settingsEnd   = "<!-- settings end -->\n"
)

// The page of settings says what the flags say.
func TestSettingsPage(t *testing.T) {
	page, err := os.ReadFile(settingsPage)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(page), settingsBegin)
	require.True(t, found)
	_, after, found := strings.Cut(rest, settingsEnd)
	require.True(t, found)
	want := before + settingsBegin + "\n" + settingsTable(t) + "\n" + settingsEnd + after
	if *update {
		require.NoError(t, os.WriteFile(settingsPage, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(page), "write it anew: go -C cmd test ./internal/config -run TestSettingsPage -update")

	store := reflect.TypeFor[config.Store]()
	for i := range store.NumField() {
		require.Contains(t, after, "| `"+store.Field(i).Tag.Get("koanf")+"` |")
	}
	for _, policy := range []reflect.Type{reflect.TypeFor[config.Timeout](), reflect.TypeFor[config.Retry](),
		reflect.TypeFor[config.CircuitBreaker](), reflect.TypeFor[config.Bulkhead](), reflect.TypeFor[config.Hedge]()} {
		for i := range policy.NumField() {
			require.Regexp(t, "(?m)^\\|.*\\|.*`"+policy.Field(i).Tag.Get("koanf")+"[.`]", after)
		}
	}
}

func settingsTable(t *testing.T) string {
	t.Helper()
	var f flags
	p, err := kong.New(&f, kong.Name("bannou"), kong.DefaultEnvars("BANNOU"))
	require.NoError(t, err)
	var b strings.Builder
	b.WriteString("| flag and variable | in the file | default | |\n| --- | --- | --- | --- |\n")
	for _, flag := range p.Model.Flags {
		if flag.Hidden || flag.Name == "help" || flag.Name == "config" {
			continue
		}
		byDefault := flag.Default
		if flag.IsBool() && byDefault == "" {
			byDefault = "false"
		}
		if byDefault != "" {
			byDefault = "`" + byDefault + "`"
		}
		b.WriteString("| `--" + flag.Name + "` `" + flag.Envs[0] + "` | `" + config.Key(flag.Name) + "` | " + byDefault + " | " + flag.Help + " |\n")
	}
	return b.String()
}
