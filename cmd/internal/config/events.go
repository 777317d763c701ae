package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"

	"github.com/go-viper/mapstructure/v2"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// eventsAccessKey holds the rules about who may use which categories of events in the file: a map, which no flag can express.
const eventsAccessKey = "events.access"

// EventsAccess reads the rules of the YAML file about categories of events; none when no file is named.
func (f File) EventsAccess() (map[string]Access, error) {
	if f == "" {
		return nil, nil
	}
	values, err := read(string(f))
	if err != nil {
		return nil, err
	}
	if values.Exists(eventsAccessKey) && values.Get(eventsAccessKey) == nil {
		return nil, fmt.Errorf("%s: %s is empty: say who may read and write which category, or leave it out for everyone", f, eventsAccessKey)
	}
	// Category names may have dots, which are separators in a path of koanf: the map is read as it is in the file.
	raw, _ := values.Raw()["events"].(map[string]any)
	if raw == nil || raw["access"] == nil {
		return nil, nil
	}
	byCategory, _ := raw["access"].(map[string]any)
	for category, rule := range byCategory { // left empty, it would open what was meant to be closed
		if rule == nil {
			return nil, fmt.Errorf("%s: %s.%s is empty: say who may read and write, or leave it out for everyone", f, eventsAccessKey, category)
		}
	}
	rules := map[string]Access{}
	decoder, err := mapstructure.NewDecoder(strict(&rules))
	if err == nil {
		err = decoder.Decode(raw["access"])
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %s", f, eventsAccessKey, oneLine(err))
	}
	return rules, nil
}

// resolveEvents says where the log is, and checks its rules.
func (c *Config) resolveEvents() error {
	e := &c.Events
	switch {
	case e.Backend == "auto" || e.Backend == "":
		e.Backend = c.EngineFor("mysql")
	case c.EngineFor(e.Backend) != e.Backend:
		return errors.New("--events-backend is mysql, and no address of it is set: give --state-mysql-dsn, or leave it at auto")
	}
	if !tableName.MatchString(e.Table) {
		return fmt.Errorf("--events-table %q: use 1 to 40 lower-case letters, digits and underscores, a letter first", e.Table)
	}
	if e.MasterKey != "" && e.MasterKeyFile != "" {
		return errors.New("--events-master-key and --events-master-key-file are both set: the key is in one place; remove one of them")
	}
	for _, category := range slices.Sorted(maps.Keys(e.Access)) {
		for _, list := range []struct {
			member string
			apps   []string
		}{{"read", e.Access[category].Read}, {"write", e.Access[category].Write}} {
			for _, id := range list.apps {
				if _, known := c.Apps[id]; !known && id != "*" {
					return fmt.Errorf("%s.%s.%s names the app %q, which is not under %s: give it a tokenFile there", eventsAccessKey, category, list.member, id, appsKey)
				}
			}
		}
	}
	return nil
}

// MasterKeys are the keys that wrap those of subjects, none where there is none. Errors repeat nothing of them.
func (e *Events) MasterKeys() ([]eventstore.MasterKey, error) {
	text, from := e.MasterKey, "--events-master-key"
	switch {
	case e.MasterKeyFile != "":
		raw, err := os.ReadFile(e.MasterKeyFile)
		if err != nil {
			return nil, fmt.Errorf("--events-master-key-file: %w", err)
		}
		text, from = string(raw), "--events-master-key-file "+e.MasterKeyFile
	case text == "":
		return nil, nil
	}
	keys, err := eventstore.ParseMasterKeys(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return keys, nil
}

// tableName leaves room for what the names of the tables beside it end with.
var tableName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)
