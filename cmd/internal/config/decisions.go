package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/bannou-mesh/bannou/services/migration"
)

// decided is where a choice comes from that no setting made.
const decided = "bannou migrate"

// DecisionFile is where the decisions of `bannou migrate` are.
func (c *Config) DecisionFile() string {
	return cmp.Or(c.MigrationFile, filepath.Join(c.DataDir, "migration.json"))
}

// ReadDecisions reads them, before Resolve.
func (c *Config) ReadDecisions() (err error) {
	c.Decisions, err = migration.OpenFile(c.DecisionFile()).Read()
	return err
}

// follow takes in what was decided about items of a block that no setting chooses for.
func (c *Config) follow(b *block, what string) {
	for _, d := range c.Decisions {
		if !strings.EqualFold(d.Block, what) {
			continue
		}
		named, byName := b.of[d.Name]
		about := fmt.Sprintf("%s of the %s %s was decided to be %s", d.Block, d.Kind, d.Name, d.To)
		switch {
		case byName:
			if wayOf(named.value) != d.To {
				c.overruled = append(c.overruled, fmt.Sprintf("%s, and %s says %s", about, named.from, named.value))
			}
		case b.by != "":
			if b.way != d.To {
				c.overruled = append(c.overruled, fmt.Sprintf("%s, and %s puts all on %s", about, b.by, b.way))
			}
		case d.To == onDapr && c.noDapr():
			c.overruled = append(c.overruled, about+", and BANNOU_DAPR_ENABLED is false")
		default:
			b.of[d.Name] = choice{d.To, decided}
		}
	}
}

func (c *Config) noDapr() bool { return c.Dapr.Enabled != nil && !*c.Dapr.Enabled }

// Overruled are the decisions that a setting overrules, as sentences.
func (c *Config) Overruled() []string { return c.overruled }

// ItemOf is what the settings say of a store, a service's messaging, or calls to a target.
func (c *Config) ItemOf(kind, of, name string) migration.Item {
	b := map[string]block{migration.BlockState: c.state, migration.BlockMessaging: c.messaging, migration.BlockMesh: c.mesh}[of]
	item := migration.Item{Kind: kind, Name: name, Block: of, Running: b.on(name), Rest: native}
	named, byName := b.of[name]
	switch {
	case byName && named.from != decided:
		item.Setting, item.Chosen = named.from, wayOf(named.value)
	case b.by != "":
		item.Setting, item.Chosen = b.by, b.way
	}
	if c.Dapr.Enabled != nil && *c.Dapr.Enabled {
		item.Rest = onDapr
	}
	if c.noDapr() {
		item.NoDapr = "BANNOU_DAPR_ENABLED is false"
	}
	return item
}

// Targets are the app-ids and services whose calls something is said about by name.
func (c *Config) Targets() []string {
	names := make([]string, 0, len(c.mesh.of))
	for name := range c.mesh.of {
		names = append(names, name)
	}
	return names
}
