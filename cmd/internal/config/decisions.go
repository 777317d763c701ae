package config

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
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
		if !strings.EqualFold(d.Block, what) || d.Kind == migration.KindTopic {
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

// followTopics takes in which topics are decided to be published in envelopes for apps of Dapr, and which are not.
func (c *Config) followTopics() {
	c.published = map[string]string{}
	for name, t := range c.Messaging.DaprTopics {
		c.published[name] = t.Publish
	}
	for _, d := range c.Decisions {
		if d.Kind != migration.KindTopic {
			continue
		}
		t, shared := c.Messaging.DaprTopics[d.Name]
		about := fmt.Sprintf("the topic %s was decided to be published for %s", d.Name, d.To)
		switch {
		case !shared && d.To == native:
		case !shared:
			c.overruled = append(c.overruled, about+", and it is not in "+daprTopicsKey)
		case d.To == native:
			t.Publish = native
			c.Messaging.DaprTopics[d.Name] = t
		case t.Subscribe == native:
			c.overruled = append(c.overruled, about+", and "+daprTopicsKey+"."+d.Name+".subscribe is native")
		default:
			t.Publish = envelope
			c.Messaging.DaprTopics[d.Name] = t
		}
	}
}

// envelope is how a topic is published for apps of Dapr.
const envelope = "envelope"

// TopicOf is what the settings say of a topic: whether it is published in envelopes for apps of Dapr.
func (c *Config) TopicOf(name string) migration.Item {
	way := func(publish string) string {
		if publish == envelope {
			return onDapr
		}
		return native
	}
	t, shared := c.Messaging.DaprTopics[name]
	item := migration.Item{
		Kind: migration.KindTopic, Name: name, Block: migration.BlockMessaging, Engine: c.Messaging.Backend,
		Running: way(t.Publish), Rest: way(c.published[name]),
	}
	if !shared {
		item.Obstacles = []string{"the topic is not shared with apps of Dapr: name it in " + daprTopicsKey}
	}
	return item
}

// Topics are those that are shared with apps of Dapr, or counted on two brokers.
func (c *Config) Topics() []string {
	names := slices.AppendSeq(slices.Clone(c.Messaging.MirrorTopics), maps.Keys(c.Messaging.DaprTopics))
	slices.Sort(names)
	return slices.Compact(names)
}

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
	return slices.Collect(maps.Keys(c.mesh.of))
}
