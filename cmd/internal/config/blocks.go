package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The two ways of a building block: the library's own drivers, or a sidecar of Dapr.
const (
	native = "native"
	onDapr = "dapr"
)

// A block is how one of the three building blocks (messaging, state, mesh) is reached: one way for all, and another one for some by name.
type block struct {
	way string            // native or dapr
	by  string            // the setting that says so for all; empty: none does
	of  map[string]choice // by service, store or app-id
}

// A choice is a way, or a broker, with the setting that says so.
type choice struct{ value, from string }

// on is the way of one service, store or app-id.
func (b block) on(name string) string {
	if c, chosen := b.of[name]; chosen {
		return wayOf(c.value)
	}
	if b.way == "" { // settings that were not resolved: a command that goes to the stores itself
		return native
	}
	return b.way
}

// uses reports whether anything is on Dapr.
func (b block) uses() bool {
	return b.way == onDapr || slices.ContainsFunc(slices.Collect(maps.Values(b.of)), func(c choice) bool { return c.value == onDapr })
}

// wayOf is the way of a backend: each broker of the node's own is the native one.
func wayOf(backend string) string {
	if backend == onDapr {
		return onDapr
	}
	return native
}

// MessagingOn is the way in which a service publishes and subscribes: native, over the broker that Messaging.Backend names once the settings are
// resolved, or dapr.
func (c *Config) MessagingOn(service string) string {
	if slices.Contains(nativeOnly(), service) {
		return native
	}
	return c.messaging.on(service)
}

// nativeOnly are the services whose subscriptions Dapr cannot make: they come and go while it runs, or each instance has its own. They stay with the node's
// own broker, whatever is chosen for all.
func nativeOnly() []string { return []string{"messaging", "state", "mesh", "events", "connect"} }

// MessagingOnDapr reports whether a service of this node is on Dapr with its events.
func (c *Config) MessagingOnDapr() bool {
	return slices.ContainsFunc(c.Services, func(service string) bool { return c.MessagingOn(service) == onDapr })
}

// MeshOnDapr reports whether anybody is called through Dapr.
func (c *Config) MeshOnDapr() bool { return c.mesh.uses() }

// StateOn is the way to a store: native or dapr.
func (c *Config) StateOn(store string) string { return c.state.on(store) }

// MeshOn is the way in which an app-id, or a service by its name, is called: native or dapr.
func (c *Config) MeshOn(target string) string { return c.mesh.on(target) }

// UsesDapr reports whether anything at all is on a sidecar.
func (c *Config) UsesDapr() bool { return c.messaging.uses() || c.state.uses() || c.mesh.uses() }

// ByName are the backends that were chosen for single services, stores and app-ids, as "state accounts=dapr (BANNOU_STATE_BACKEND_ACCOUNTS)".
func (c *Config) ByName() []string {
	var lines []string
	for what, b := range map[string]block{"messaging": c.messaging, "state": c.state, "mesh": c.mesh} {
		for name, chosen := range b.of {
			lines = append(lines, fmt.Sprintf("%s %s=%s (%s)", what, name, chosen.value, chosen.from))
		}
	}
	slices.Sort(lines)
	return lines
}

// resolveBackends brings the settings that choose backends into one form. After it, Messaging.Backend is the node's own broker.
func (c *Config) resolveBackends() error {
	var errs [3]error
	c.messaging, errs[0] = c.resolveBlock("MESSAGING", &c.Messaging.Backend, c.UseNativeMessaging, c.Messaging.Backends, brokers())
	c.state, errs[1] = c.resolveBlock("STATE", &c.State.Backend, c.UseNativeState, c.State.Backends, []string{native})
	c.mesh, errs[2] = c.resolveBlock("MESH", &c.Mesh.Backend, c.UseNativeMesh, c.Mesh.Backends, []string{native})
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	for name, s := range c.State.Stores {
		if err := c.resolveStore(name, s.Backend); err != nil {
			return err
		}
	}
	return c.resolveBroker()
}

// brokers are the native ones, and the proposal's name for the first.
func brokers() []string { return []string{"rabbitmq", "masstransit", "redis", "memory", native} }

// resolveBlock reconciles the ways to choose a backend, which come from several stages of a migration from Dapr.
func (c *Config) resolveBlock(what string, backend *string, useNative string, byName, natives []string) (block, error) {
	allowed := append(slices.Clone(natives), onDapr)
	variable := "BANNOU_" + what + "_BACKEND"
	b := block{way: native, of: map[string]choice{}}
	chosen := *backend
	var from string
	switch {
	case chosen != "":
		if !slices.Contains(allowed, chosen) || what == "MESSAGING" && chosen == native { // which has more than one broker
			return b, notOneOf(what, chosen)
		}
		b.way, b.by, from = wayOf(chosen), variable, variable+" is "+chosen
	case useNative == "" && c.Dapr.Enabled != nil && *c.Dapr.Enabled:
		b.way = onDapr
	}
	if useNative != "" {
		asked, err := strconv.ParseBool(useNative)
		if err != nil {
			return b, fmt.Errorf("BANNOU_USE_NATIVE_%s is %q: it is true or false", what, useNative)
		}
		if chosen != "" && asked != (b.way == native) {
			return b, fmt.Errorf("BANNOU_USE_NATIVE_%s is %t and %s: they disagree, remove one of them", what, asked, from)
		}
		if chosen == "" {
			b.by = "BANNOU_USE_NATIVE_" + what
		}
		if chosen == "" && !asked {
			b.way, from = onDapr, fmt.Sprintf("BANNOU_USE_NATIVE_%s is false", what)
		}
	}
	if b.way == onDapr && from != "" {
		if err := c.daprIsThere(from); err != nil {
			return b, err
		}
	}
	if chosen == "" {
		*backend = b.way
	}
	for _, one := range append(fromList(what, byName), fromVariables(variable+"_")...) {
		if err := c.addChoice(&b, what, one, allowed); err != nil {
			return b, err
		}
	}
	c.follow(&b, what)
	return b, nil
}

// daprIsThere refuses a choice of Dapr on a node that is told that there is none.
func (c *Config) daprIsThere(chosen string) error {
	if c.Dapr.Enabled != nil && !*c.Dapr.Enabled {
		return fmt.Errorf("BANNOU_DAPR_ENABLED is false and %s: they disagree, remove one of them", chosen)
	}
	return nil
}

// A named is a choice for one name.
type named struct {
	name string
	choice
}

// fromList reads a setting of the form name=backend,name=backend.
func fromList(what string, list []string) (all []named) {
	from := "--" + strings.ToLower(what) + "-backends"
	for _, entry := range list {
		name, backend, _ := strings.Cut(entry, "=")
		all = append(all, named{strings.TrimSpace(name), choice{strings.TrimSpace(backend), from}})
	}
	return all
}

// fromVariables reads variables that name a service, store or app-id after the block: BANNOU_STATE_BACKEND_GAME_SESSION is of game-session. An
// empty one is none.
func fromVariables(prefix string) (all []named) {
	for _, pair := range os.Environ() {
		variable, value, _ := strings.Cut(pair, "=")
		if name, ours := strings.CutPrefix(variable, prefix); ours && name != "" && value != "" {
			all = append(all, named{strings.ToLower(strings.ReplaceAll(name, "_", "-")), choice{value, variable}})
		}
	}
	slices.SortFunc(all, func(a, b named) int { return strings.Compare(a.name, b.name) })
	return all
}

func (c *Config) addChoice(b *block, what string, one named, allowed []string) error {
	if one.name == "" || !slices.Contains(allowed, one.value) {
		return fmt.Errorf("%s says %s=%s: write a name, and one of %s", one.from, one.name, one.value, strings.Join(allowed, ", "))
	}
	if before, twice := b.of[one.name]; twice && before.value != one.value {
		return fmt.Errorf("%s says that %s of %s is %s, and %s that it is %s: they disagree, remove one of them",
			before.from, strings.ToLower(what), one.name, before.value, one.from, one.value)
	}
	if what == "MESSAGING" && one.value == onDapr && slices.Contains(nativeOnly(), one.name) {
		return fmt.Errorf("%s says that messaging of %s is dapr: its subscriptions come and go, or are those of each instance, which Dapr cannot do; leave it on a native broker", one.from, one.name)
	}
	if one.value == onDapr {
		if err := c.daprIsThere(fmt.Sprintf("%s says that %s of %s is dapr", one.from, strings.ToLower(what), one.name)); err != nil {
			return err
		}
	}
	b.of[one.name] = one.choice
	return nil
}

// resolveStore takes in what the file says of a store's backend.
func (c *Config) resolveStore(name, backend string) error {
	if backend != onDapr {
		return nil
	}
	from := storesKey + "." + name + ".backend"
	if err := c.daprIsThere(from + " is dapr"); err != nil {
		return err
	}
	if chosen, twice := c.state.of[name]; twice && chosen.value != onDapr {
		return fmt.Errorf("%s is dapr, and %s says that it is native, without a native engine to put it on: name the engine in the file, which %s=dapr then overrules", from, chosen.from, variableOf("STATE", name))
	}
	c.state.of[name] = choice{onDapr, from}
	return nil
}

func variableOf(what, name string) string {
	return "BANNOU_" + what + "_BACKEND_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

func notOneOf(what, backend string) error {
	if what == "MESSAGING" {
		return fmt.Errorf("messaging backend %q is not one of this node's: choose memory, rabbitmq, redis or dapr", backend)
	}
	return fmt.Errorf("%s backend %q is not one of this node's: choose native or dapr", strings.ToLower(what), backend)
}

// resolveBroker says which broker is the node's own. The node's news about itself goes there also when its services are on Dapr: to the one that has
// an address, or to the process's memory, where nobody else hears it.
func (c *Config) resolveBroker() error {
	general := c.Messaging.Backend
	own := ""
	if general != onDapr && general != native {
		own = plainName(general)
	}
	from := "BANNOU_MESSAGING_BACKEND"
	for _, service := range slices.Sorted(maps.Keys(c.messaging.of)) {
		chosen := c.messaging.of[service]
		broker := plainName(chosen.value)
		switch {
		case broker == onDapr:
			continue
		case broker == native && general == onDapr && c.addressed() == "memory":
			return fmt.Errorf("%s says that messaging of %s is native, and BANNOU_MESSAGING_BACKEND is dapr, so that no native broker is named: say %s=rabbitmq, or another broker",
				chosen.from, service, service)
		case broker == native:
		case own != "" && own != broker:
			return fmt.Errorf("%s is %s and %s says that messaging of %s is %s: a node has one broker beside Dapr, name the same", from, own, chosen.from, service, broker)
		default:
			own, from = broker, chosen.from
		}
	}
	switch {
	case own != "":
	case general == onDapr:
		own = c.addressed()
	default:
		own = "memory"
	}
	c.Messaging.Backend = own
	return c.messagingBackend()
}

// plainName is the name of a backend without the proposal's alias of it.
func plainName(backend string) string {
	if backend == "masstransit" {
		return "rabbitmq"
	}
	return backend
}

// addressed is the broker that has an address of its own.
func (c *Config) addressed() string {
	m := &c.Messaging
	switch {
	case len(m.RabbitMQURLs) > 0:
		return "rabbitmq"
	case m.RedisURL != "" || len(m.RedisSentinelURLs) > 0:
		return "redis"
	default:
		return "memory"
	}
}
