package config

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/v2"
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

// tokenFileLimit is far more than the tokens of one app take.
const tokenFileLimit = 64 << 10

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

// Tokens reads the tokens of the apps, by app-id. Errors name files, and never repeat what is in them.
func (c *Config) Tokens() (map[string][]string, error) {
	tokens := map[string][]string{}
	for id, app := range c.Apps {
		lines, err := ReadTokens(app.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("%s.%s.tokenFile: %w", appsKey, id, err)
		}
		tokens[id] = lines
	}
	return tokens, nil
}

// ReadTokens reads a file that holds one token a line, at least one.
func ReadTokens(name string) ([]string, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the token: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(file, tokenFileLimit+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the token: %w", err)
	}
	if len(text) > tokenFileLimit {
		return nil, fmt.Errorf("%s is larger than the %d bytes that tokens take; is it another file?", name, tokenFileLimit)
	}
	var tokens []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" {
			tokens = append(tokens, line)
		}
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("%s holds no token: write one into it, such as by `openssl rand -base64 32`", name)
	}
	return tokens, nil
}
