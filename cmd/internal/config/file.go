package config

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
)

// File is the flag that names the YAML file. What the file says counts less than a flag or a variable, and more than a
// default. A member that no setting has is an error, so that a typing mistake is not a silent default.
type File string

// storesKey holds the stores in the file: a map, which no flag can express.
const storesKey = "state.stores"

// BeforeResolve reads the file before kong fills in what the command line and the environment left open.
func (File) BeforeResolve(ctx *kong.Context, trace *kong.Path) error {
	name := string(ctx.FlagValue(trace.Flag).(File))
	// kong asks the flags of all commands that a variable sets. The variable of a node's container is nothing to the others.
	if name == "" || !slices.Contains(ctx.Flags(), trace.Flag) {
		return nil
	}
	values, err := read(name)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, f := range ctx.Flags() {
		known[key(f.Name)] = f != trace.Flag && f.Name != "help"
	}
	for _, k := range values.Keys() {
		if !known[k] && !inMaps(k) {
			return fmt.Errorf("%s: no setting is called %s; `bannou serve --help` lists them", name, k)
		}
	}
	fill(ctx, name, values)
	return nil
}

// inMaps reports whether a member is in one of the maps that no flag can express; who reads those knows their members.
func inMaps(key string) bool {
	return slices.ContainsFunc([]string{storesKey, mirrorsKey, daprTopicsKey, appsKey, accessKey, resilienceKey, eventsAccessKey}, func(of string) bool {
		return key == of || strings.HasPrefix(key, of+".")
	})
}

// fill gives the flags that neither the command line nor a variable sets the file's values.
func fill(ctx *kong.Context, name string, values *koanf.Koanf) {
	ctx.AddResolver(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		k := key(flag.Name)
		if inEnvironment(flag) || !values.Exists(k) {
			return nil, nil
		}
		switch value := values.Get(k).(type) {
		case map[string]any:
			return nil, fmt.Errorf("%s: %s is a single value, not a group", name, k)
		case []any:
			if !flag.IsSlice() { // kong's own error would print the value, which may be a secret
				return nil, fmt.Errorf("%s: %s is a single value, not a list", name, k)
			}
			return value, nil
		default:
			return value, nil
		}
	}))
}

// Stores reads the stores of the YAML file; none when no file is named.
func (f File) Stores() (map[string]Store, error) {
	if f == "" {
		return nil, nil
	}
	values, err := read(string(f))
	if err != nil {
		return nil, err
	}
	stores := map[string]Store{}
	err = values.UnmarshalWithConf(storesKey, &stores, koanf.UnmarshalConf{DecoderConfig: strict(&stores)})
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %s", f, storesKey, oneLine(err))
	}
	for name := range stores { // left empty, it would open what was meant to be closed
		if access := storesKey + "." + name + ".access"; values.Exists(access) && values.Get(access) == nil {
			return nil, fmt.Errorf("%s: %s is empty: say who may read and write, or leave it out for everyone", f, access)
		}
	}
	return stores, nil
}

func read(name string) (*koanf.Koanf, error) {
	if _, err := os.Stat(name); err != nil {
		return nil, fmt.Errorf("cannot read the configuration file: %w", err)
	}
	values := koanf.New(".")
	if err := values.Load(file.Provider(name), yaml.Parser()); err != nil {
		return nil, fmt.Errorf("%s is not a YAML file of settings: %s", name, oneLine(err))
	}
	return values, nil
}

// groups are the first words of flags that are groups in the file.
func groups() []string {
	return []string{"accounts", "auth", "connect", "dapr", "egress", "events", "log", "mesh", "messaging", "state", "telemetry"}
}

// key is the place in the YAML file of a flag: messaging-retry-delay-ms is messaging.retryDelayMs.
func key(flag string) string {
	words := strings.Split(flag, "-")
	group := ""
	if len(words) > 1 && slices.Contains(groups(), words[0]) {
		group, words = words[0]+".", words[1:]
	}
	for i := 1; i < len(words); i++ {
		words[i] = strings.ToUpper(words[i][:1]) + words[i][1:]
	}
	return group + strings.Join(words, "")
}

func inEnvironment(flag *kong.Flag) bool {
	for _, name := range flag.Envs {
		if _, ok := os.LookupEnv(name); ok {
			return true
		}
	}
	return false
}

// UnknownVariables lists the BANNOU_* variables that are set and that no flag of the application has, except those that
// tests read.
func UnknownVariables(app *kong.Application) []string {
	known := map[string]bool{}
	var visit func(n *kong.Node)
	visit = func(n *kong.Node) {
		for _, f := range n.Flags {
			for _, e := range f.Envs {
				known[e] = true
			}
		}
		for _, c := range n.Children {
			visit(c)
		}
	}
	visit(app.Node)
	unknown := map[string]bool{}
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "BANNOU_") && !strings.HasPrefix(name, "BANNOU_TEST_") && !known[name] && !ofOne(name) {
			unknown[name] = true
		}
	}
	return slices.Sorted(maps.Keys(unknown))
}

// ofOne reports a variable that chooses a backend by the name of a service, store or app-id.
func ofOne(variable string) bool {
	return slices.ContainsFunc([]string{"MESSAGING", "STATE", "MESH"}, func(what string) bool {
		return strings.HasPrefix(variable, "BANNOU_"+what+"_BACKEND_")
	})
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
