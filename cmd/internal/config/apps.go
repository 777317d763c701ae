package config

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/knadh/koanf/v2"

	"github.com/bannou-mesh/bannou/services/guard"
)

// appsKey holds the apps in the file: a map, which no flag can express.
const appsKey = "apps"

// App is a program that stores may be reserved for; only in the YAML file, under apps.APP-ID.
type App struct {
	TokenFile string `koanf:"tokenFile"` // one token a line: a second one while a token is being replaced
}

// Access says which apps may use a store, by their app-ids; "*" is everyone. To write does not include to read.
type Access struct {
	Read  []string `koanf:"read"`
	Write []string `koanf:"write"`
}

// Apps reads the apps of the YAML file; none when no file is named.
func (f File) Apps() (map[string]App, error) {
	if f == "" {
		return nil, nil
	}
	values, err := read(string(f))
	if err != nil {
		return nil, err
	}
	apps := map[string]App{}
	err = values.UnmarshalWithConf(appsKey, &apps, koanf.UnmarshalConf{DecoderConfig: strict(&apps)})
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %s", f, appsKey, oneLine(err))
	}
	return apps, nil
}

// checkAccess refuses rules that name apps which there are not, and apps that cannot have a token.
func (c *Config) checkAccess() error {
	for _, id := range slices.Sorted(maps.Keys(c.Apps)) {
		if c.Apps[id].TokenFile == "" {
			return fmt.Errorf("%s.%s.tokenFile is missing: name the file that holds the app's token", appsKey, id)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.State.Stores)) {
		access := c.State.Stores[name].Access
		if access == nil {
			continue
		}
		for _, list := range []struct {
			member string
			apps   []string
		}{{"read", access.Read}, {"write", access.Write}} {
			for _, id := range list.apps {
				if _, known := c.Apps[id]; !known && id != "*" {
					return fmt.Errorf("%s.%s.access.%s names the app %q, which is not under %s: give it a tokenFile there", storesKey, name, list.member, id, appsKey)
				}
			}
		}
	}
	return nil
}

// Tokens are the tokens of the apps, which follow their files. Errors name files, and never repeat what is in them.
func (c *Config) Tokens(log *slog.Logger) (*guard.Tokens, error) {
	files := map[string]string{}
	for id, app := range c.Apps {
		files[id] = app.TokenFile
	}
	tokens, err := guard.TokenFiles(files, log)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", appsKey, err)
	}
	return tokens, nil
}
