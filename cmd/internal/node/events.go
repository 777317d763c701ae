package node

import (
	"context"
	"fmt"
	"slices"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/sqliteevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/accounts"
	"github.com/bannou-mesh/bannou/services/events"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/host"
)

// eventsDriver is the driver that the log of events shares with the stores.
func eventsDriver(cfg *config.Config, drivers []state.Driver) state.Driver {
	for _, d := range drivers {
		if d.Backend() == cfg.Events.Backend {
			return d
		}
	}
	return nil
}

// eventLog makes the events service over the node's log. A broker that is this process's memory has no other nodes to tell.
func (p parts) eventLog() (host.Service, error) {
	access, err := eventsAccess(p.cfg, p.apps)
	if err != nil {
		return nil, err
	}
	log, hints, err := p.openShared()
	if err != nil {
		return nil, err
	}
	return events.New(events.Config{Log: log, Hints: hints, Internal: keptCategories(), Access: access, Logger: p.log, MeterProvider: p.meter})
}

// keptCategories are the beginnings of those that services and sagas keep: who writes there makes accounts, and instances with any command.
func keptCategories() []string { return []string{accounts.Categories, "saga."} }

// A sharedLog is the node's one log, which several services use.
type sharedLog struct {
	log   *eventstore.Store
	hints *events.Hints
}

// openShared opens the log for the first service that needs it. Other nodes are told of appends where the events service runs.
func (p parts) openShared() (*eventstore.Store, *events.Hints, error) {
	if p.shared.log != nil {
		return p.shared.log, p.shared.hints, nil
	}
	masters, err := p.cfg.Events.MasterKeys()
	if err != nil {
		return nil, nil, err
	}
	cfg := eventstore.Config{MasterKeys: masters, Table: p.cfg.Events.Table, Logger: p.log, MeterProvider: p.meter}
	if slices.Contains(p.cfg.Services, "events") && p.cfg.Messaging.Backend != "memory" && p.cfg.Events.Backend != "memory" {
		p.shared.hints = events.NewHints(events.HintsConfig{Bus: p.bus, Log: p.cfg.Events.Table, InstanceID: p.instanceID, Logger: p.log})
		cfg.OnAppend = p.shared.hints.Appended
	}
	p.shared.log, err = openLog(p.events, cfg)
	return p.shared.log, p.shared.hints, err
}

func openLog(driver state.Driver, cfg eventstore.Config) (*eventstore.Store, error) {
	switch driver := driver.(type) {
	case *mysqlstate.Driver:
		return mysqlevents.Open(driver, cfg)
	case *sqlitestate.Driver:
		ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
		defer cancel()
		return sqliteevents.Open(ctx, driver, cfg)
	case nil:
		return memoryevents.New(cfg), nil
	default:
		return nil, fmt.Errorf("the log of events cannot be kept by %T", driver)
	}
}

// eventsAccess is nil when no category has a rule: then no token is asked for.
func eventsAccess(cfg *config.Config, apps *guard.Tokens) (*guard.Access, error) {
	if len(cfg.Events.Access) == 0 {
		return nil, nil
	}
	rules := map[string]guard.AccessRule{}
	for category, a := range cfg.Events.Access {
		rules[category] = guard.AccessRule{Read: a.Read, Write: a.Write}
	}
	access, err := guard.NewAccess(apps, "category", rules)
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	return access, nil
}
