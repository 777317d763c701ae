package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/cmd/internal/node"
	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/migrate"
	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
)

type stateMigrateCommand struct {
	nodeFlag
	outputFlag
	From string `required:"" placeholder:"BACKEND:STORE" help:"Where the store is, such as redis:auth."`
	To   string `required:"" placeholder:"BACKEND:STORE" help:"Where it goes, such as mysql:auth."`

	CutOver bool `name:"cut-over" xor:"step" help:"Have the new place decide; changes are then carried to the old one."`
	Back    bool `xor:"step" help:"After --cut-over: have the old place decide again. Before it: end the migration."`
	Finish  bool `xor:"step" help:"After --cut-over: carry nothing back any more. There is no way back from it."`
	Status  bool `xor:"step" help:"Only say how far it is."`
	Compare bool `xor:"step" help:"Only compare both places."`

	Overwrite   bool `help:"Replace or delete keys that are in the new place already."`
	Differences int  `default:"20" help:"How many keys that differ are listed."`

	MaxPause time.Duration `name:"max-pause" default:"10s" help:"How long changes may wait, beyond two and a half seconds, while the decision moves; after that it stays where it was."`

	FromPrefix string `name:"from-prefix" help:"Key prefix of the old place, if it is Redis. Default: as the file has it, or the store's name."`
	FromTable  string `name:"from-table" help:"Table of the old place, if it is SQL. Default: as the file has it, or state_entries."`
	ToPrefix   string `name:"to-prefix" help:"Key prefix of the new place."`
	ToTable    string `name:"to-table" help:"Table of the new place."`

	File    config.SharedFile `name:"config" type:"path" help:"YAML file of the nodes."`
	DataDir string            `name:"data-dir" default:"./.bannou" help:"Folder of the nodes' embedded storage, for sqlite."`
	Servers config.State      `embed:"" prefix:"state-"`
}

// Help is printed below the flags.
func (stateMigrateCommand) Help() string {
	return `Without a step it copies what is in the old place to the new one and compares the two, while the store is in use. It may be interrupted
and done again at any time. Settings of the servers are those of the nodes: the same flags, BANNOU_* variables and YAML file.
The node of --node publishes state.migration events that tell of it; without one it is done all the same.`
}

// Run ends with 1 when both places are not the same.
func (c *stateMigrateCommand) Run(ctx context.Context, std *stdio) error {
	cfg := &config.Config{DataDir: c.DataDir, State: c.Servers}
	var err error
	if cfg.State.Stores, err = c.File.Stores(); err != nil {
		return usageError{err}
	}
	ends, err := c.ends(cfg)
	if err != nil {
		return usageError{err}
	}
	if err := checkEnds(cfg, ends); err != nil {
		return usageError{err}
	}
	places, closing, err := openPlaces(cfg, ends) //nolint:contextcheck // drivers outlive the call that makes them
	if err != nil {
		return usageError{err}
	}
	bar := newProgress(std.err)
	news := &migrationNews{flag: c.nodeFlag, store: ends[0].cfg.Name, std: std, bar: bar}
	m, err := migrate.Open(ctx, migrate.Options{
		From: places[0], To: places[1], Overwrite: c.Overwrite, Differences: c.Differences, MaxPause: c.MaxPause,
		Report: func(p migrate.Progress) { news.progress(ctx, p) },
	})
	switch {
	case errors.Is(err, migrate.ErrSamePlace), errors.Is(err, state.ErrInvalid):
		err = usageError{err}
	case err == nil:
		err = c.step(ctx, std, m, news)
	}
	bar.end()
	return errors.Join(err, closing())
}

func (c *stateMigrateCommand) step(ctx context.Context, std *stdio, m *migrate.Migration, news *migrationNews) error {
	say := func(lines ...string) error {
		news.bar.end()
		return c.print(std, map[string]any{"done": true, "next": lines[1:]}, func(t *table) {
			for _, line := range lines {
				t.line(line)
			}
		})
	}
	switch {
	case c.Status:
		return c.status(ctx, std, m)
	case c.Compare:
		found, err := m.Compare(ctx)
		news.bar.end()
		if err != nil {
			return err
		}
		return c.compared(std, found, "")
	case c.CutOver:
		if err := m.CutOver(ctx); err != nil {
			return err
		}
		return say(c.To+" decides now, and changes are carried back to "+c.From,
			"next: --finish when you are sure, or --back to have "+c.From+" decide again")
	case c.Back:
		phase, err := m.Back(ctx)
		if err != nil {
			return err
		}
		if phase == migrate.Source {
			return say("the migration is over; "+c.From+" is used alone, and "+c.To+" stays as it is",
				"next: take `migration` out of the store's configuration on every node")
		}
		return say(c.From+" decides again, and changes are carried to "+c.To,
			"next: --cut-over to try again, or --back to end the migration")
	case c.Finish:
		if err := m.Finish(ctx); err != nil {
			return err
		}
		return say(c.To+" is used alone, and nothing is carried to "+c.From+" any more",
			"next: name the new backend in the store's configuration on every node, without `migration`; what is in "+c.From+" may be deleted")
	default:
		return c.copy(ctx, std, m, news)
	}
}

func (c *stateMigrateCommand) copy(ctx context.Context, std *stdio, m *migrate.Migration, news *migrationNews) error {
	news.tell(ctx, events.StoreMigrationStatusStarted, "")
	found, err := m.Copy(ctx)
	news.bar.end()
	if err != nil {
		news.tell(context.WithoutCancel(ctx), events.StoreMigrationStatusFailed, err.Error())
		return err
	}
	err = c.compared(std, found, "next: --cut-over, if every node has this migration in the store's configuration;\n"+
		"      otherwise end the programs that write, do this once more, and name the new backend in the configuration")
	if err != nil {
		news.tell(ctx, events.StoreMigrationStatusFailed, err.Error())
		return err
	}
	news.tell(ctx, events.StoreMigrationStatusCompleted, "")
	return nil
}

// compared prints what was found. A difference is an error.
func (c *stateMigrateCommand) compared(std *stdio, found migrate.Comparison, next string) error {
	err := c.print(std, struct {
		migrate.Comparison
		FromChecksum string `json:"fromChecksum"`
		ToChecksum   string `json:"toChecksum"`
	}{found, found.FromChecksum.String(), found.ToChecksum.String()}, func(t *table) {
		t.row("PLACE", "KEYS", "CHECKSUM")
		t.row(c.From, found.FromKeys, found.FromChecksum)
		t.row(c.To, found.ToKeys, found.ToChecksum)
		for _, d := range found.Differences {
			t.row("DIFFERENT", d.Key, d.What)
		}
		if found.Busy > 0 {
			t.line(fmt.Sprintf("%d keys were written again and again while they were looked at, and not compared", found.Busy))
		}
		if found.Equal() {
			t.line("the same")
		}
		if next != "" && found.Different == 0 {
			t.line(next)
		}
	})
	if err == nil && found.Different > 0 {
		return fmt.Errorf("%d keys are not the same in both places; where programs write to the store meanwhile, do it again", found.Different)
	}
	return err
}

func (c *stateMigrateCommand) status(ctx context.Context, std *stdio, m *migrate.Migration) error {
	status, err := m.Status(ctx)
	if err != nil {
		return err
	}
	return c.print(std, status, func(t *table) {
		t.row("PHASE", status.Phase)
		t.row("MEANS", c.meaning(status))
		t.row("COPIED", fmt.Sprintf("%d of %d", status.Keys, status.Total))
		t.row("COMPARED", status.Copied)
		t.row("WAITING", fmt.Sprintf("%d changes noted to be carried", status.Waiting))
		if status.Dirty {
			t.row("NOTE", "changes could not be carried, and a comparison is needed; the next step makes it")
		}
		if r := status.Runner; r != nil {
			t.row("RUNS", fmt.Sprintf("process %d on %s, since %s", r.PID, r.Host, r.Since.Format(time.RFC3339)))
		}
	})
}

func (c *stateMigrateCommand) meaning(s migrate.Status) string {
	switch {
	case s.Closing:
		return "changes wait while the decision moves; if no process does that, run --cut-over or --back"
	case s.Phase == migrate.Source:
		return c.From + " is used alone"
	case s.Phase == migrate.Mirror:
		return c.From + " decides, and changes are carried to " + c.To
	case s.Phase == migrate.Target:
		return c.To + " decides, and changes are carried to " + c.From
	default:
		return c.To + " is used alone"
	}
}

// An end is a place as the command line and the configuration name it.
type end struct {
	backend string
	cfg     state.StoreConfig
}

// ends reads both places.
func (c *stateMigrateCommand) ends(cfg *config.Config) ([2]end, error) {
	var ends [2]end
	for i, side := range []struct{ flag, text, prefix, table string }{
		{"--from", c.From, c.FromPrefix, c.FromTable}, {"--to", c.To, c.ToPrefix, c.ToTable},
	} {
		backend, name, ok := strings.Cut(side.text, ":")
		if !ok || name == "" {
			return ends, fmt.Errorf("%s %q: write a place as backend:store, such as redis:auth", side.flag, side.text)
		}
		if !slices.Contains([]string{"redis", "mysql", "sqlite"}, backend) {
			why := "choose redis, mysql or sqlite"
			if backend == "memory" {
				why = "what a node has in memory, no other process can read; " + why
			}
			return ends, fmt.Errorf("%s %q: there is no backend %q to migrate: %s", side.flag, side.text, backend, why)
		}
		if err := cfg.HasAddress(backend); err != nil {
			return ends, fmt.Errorf("%s %q: %w", side.flag, side.text, err)
		}
		known := cfg.AllStores()
		s, ok := known[name]
		if !ok && i == 0 {
			return ends, fmt.Errorf("%s %q: no store is called %q; there are: %s; others have to be in the file of --config",
				side.flag, side.text, name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		e := end{backend: backend, cfg: state.StoreConfig{Name: name}}
		switch to := s.Migration; {
		case to != nil && i == 1 && to.To.Backend == backend:
			e.cfg.KeyPrefix, e.cfg.TableName = to.To.KeyPrefix, to.To.TableName
		case s.Backend == backend:
			e.cfg.KeyPrefix, e.cfg.TableName = s.KeyPrefix, s.TableName
		}
		if side.prefix != "" {
			e.cfg.KeyPrefix = side.prefix
		}
		if side.table != "" {
			e.cfg.TableName = side.table
		}
		ends[i] = e
	}
	return ends, nil
}

// checkEnds refuses places that share keys with others. That both are one is told apart.
func checkEnds(cfg *config.Config, ends [2]end) error {
	from, to := ends[0].cfg, ends[1].cfg
	from.Backend, to.Backend = ends[0].backend, ends[1].backend
	if from.Backend == to.Backend && from.Name == to.Name && from.KeyPrefix == to.KeyPrefix && from.TableName == to.TableName {
		return nil
	}
	return node.CheckTarget(cfg, from, to)
}

// openPlaces makes a driver for each backend, and what closes them.
func openPlaces(cfg *config.Config, ends [2]end) (places [2]migrate.Place, closing func() error, err error) {
	drivers := map[string]state.Driver{}
	closing = func() error {
		var errs []error
		for _, d := range drivers {
			errs = append(errs, d.Close())
		}
		return errors.Join(errs...)
	}
	for i, e := range ends {
		if drivers[e.backend] == nil {
			d, err := node.NewStateDriver(cfg, e.backend, slog.New(slog.DiscardHandler))
			if err != nil {
				return places, nil, errors.Join(err, closing())
			}
			drivers[e.backend] = d
		}
		places[i] = migrate.Place{Driver: drivers[e.backend], Store: e.cfg}
	}
	return places, closing, nil
}

// migrationNews shows how far a migration is, and has a node publish events of it.
type migrationNews struct {
	flag  nodeFlag
	store string
	std   *stdio
	bar   *progress

	last   migrate.Progress
	told   time.Time
	silent bool // no node takes the events
	noted  string
}

// newsEvery is how often an event tells of the progress.
const newsEvery = 2 * time.Second

func (n *migrationNews) progress(ctx context.Context, p migrate.Progress) {
	if p.Note != "" {
		if p.Note != n.noted {
			n.bar.end()
			_, _ = fmt.Fprintln(n.std.err, printable(p.Note))
		}
		n.noted = p.Note
		return
	}
	n.noted = ""
	n.bar.show(p.Keys, max(p.Total, p.Keys), p.Step)
	if p.Step != "copy" {
		return
	}
	n.last = p
	if now := time.Now(); now.Sub(n.told) >= newsEvery {
		n.told = now
		n.tell(ctx, events.StoreMigrationStatusProgress, "")
	}
}

// tell has the node publish an event. That none answers is said once.
func (n *migrationNews) tell(ctx context.Context, status events.StoreMigrationStatus, failure string) {
	if n.silent {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	event := map[string]any{"storeName": n.store, "status": status, "keysProcessed": n.last.Keys, "totalKeys": n.last.Total}
	if failure != "" {
		event["errorMessage"] = failure
	}
	payload, err := json.Marshal(event)
	if err == nil {
		var client *messagingapi.Client
		if client, err = n.flag.messaging(); err == nil {
			_, err = read(client.PublishEvent(ctx, messagingapi.PublishEventRequest{
				Topic: events.TopicStateMigration, Payload: payload, Options: messagingapi.PublishOptions{PartitionKey: n.store}, // in their order
			}))
		}
	}
	if err != nil {
		n.silent = true
		n.bar.end()
		_, _ = fmt.Fprintf(n.std.err, "no state.migration events are published: %s\n", printable(err.Error()))
	}
}
