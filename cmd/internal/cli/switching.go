package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/services/migration/migrationapi"
)

type migrateCommand struct {
	Plan     migratePlanCommand     `cmd:"" help:"List what is on Dapr, in the order in which it should move, and what is in the way."`
	Status   migrateStatusCommand   `cmd:"" help:"Say of each store and service where it is, what comparing has found, and whether it is safe to switch."`
	Switch   migrateSwitchCommand   `cmd:"" help:"Decide that a store or service goes to the other way at the node's next start."`
	Rollback migrateRollbackCommand `cmd:"" help:"Undo the last decision about it, at the node's next start."`
}

// migrateFlags are those of all its commands.
type migrateFlags struct {
	nodeFlag
	outputFlag
	JSON bool `name:"json" help:"The same as --output json."`
}

// AfterApply has --json mean what it says.
func (f *migrateFlags) AfterApply() error {
	if f.JSON {
		f.Output = "json"
	}
	return nil
}

func (f *migrateFlags) migration() (*migrationapi.Client, error) {
	client, base, err := f.client()
	if err != nil {
		return nil, err
	}
	return migrationapi.NewClient(base, migrationapi.WithHTTPClient(client))
}

type migratePlanCommand struct{ migrateFlags }

func (c *migratePlanCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.migration()
	if err != nil {
		return err
	}
	plan, err := decode[migrationapi.MigrationPlan](read(client.PlanMigration(ctx, migrationapi.PlanMigrationRequest{})))
	if err != nil {
		return err
	}
	return c.print(std, plan, func(t *table) {
		for _, o := range plan.Obstacles {
			t.row("IN THE WAY", o)
		}
		if len(plan.Steps) == 0 {
			t.line("nothing is on Dapr")
			return
		}
		t.row("STEP", "KIND", "NAME", "BLOCK", "SAFE", "WHY")
		for i := range plan.Steps {
			s := &plan.Steps[i]
			t.row(i+1, s.Kind, s.Name, s.Block, yes(s.Safe), s.Why)
			for _, o := range s.Obstacles {
				if o != s.Why {
					t.row("", "", "", "", "", o)
				}
			}
		}
	})
}

type migrateStatusCommand struct {
	migrateFlags
	Kind string        `arg:"" optional:"" enum:"store,service,topic," default:"" help:"Only stores, services or topics."`
	Name string        `arg:"" optional:"" help:"Only that of this name."`
	Last time.Duration `default:"15m" help:"The span that is looked back on, 10s to 1h."`
}

func (c *migrateStatusCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.migration()
	if err != nil {
		return err
	}
	status, err := decode[migrationapi.MigrationStatus](read(client.GetMigrationStatus(ctx, migrationapi.MigrationStatusRequest{
		Kind: c.Kind, Name: c.Name, Seconds: float32(c.Last.Seconds()),
	})))
	if err != nil {
		return err
	}
	return c.print(std, status, func(t *table) { t.items(status.Items) })
}

// items are the rows of a list of items.
func (t *table) items(items []migrationapi.MigrationItem) {
	t.row("KIND", "NAME", "BLOCK", "RUNS ON", "NEXT START", "COMPARED", "DIFFERENT", "SAFE", "WHY")
	for i := range items {
		m := &items[i]
		compared, different := "-", "-"
		if m.Comparison.With != "" {
			compared, different = fmt.Sprint(m.Comparison.Compared), fmt.Sprint(m.Comparison.Different)
		}
		next := m.Next
		switch {
		case m.Overruled:
			next += " (overruled by " + m.Setting + ")"
		case m.Setting != "":
			next += " (" + m.Setting + ")"
		case !m.DecidedAt.IsZero():
			next += " (decided " + m.DecidedAt.Format(time.RFC3339) + ")"
		}
		t.row(m.Kind, m.Name, m.Block, way(m), next, compared, different, yes(m.Safe), m.Why)
	}
}

// way is the way of an item, and what it leads to.
func way(m *migrationapi.MigrationItem) string {
	if m.Engine == "" || m.Engine == m.Running {
		return m.Running
	}
	return m.Running + ", " + m.Engine
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

type migrateSwitchCommand struct {
	migrateFlags
	Kind  string `arg:"" enum:"store,service,topic" help:"store, service or topic."`
	Name  string `arg:"" help:"Which one."`
	Block string `enum:"messaging,mesh," default:"" help:"Of a service: messaging (its events) or mesh (calls to it). Default: both."`
	To    string `enum:"native,dapr," default:"" help:"native or dapr. Default: native."`
	Force bool   `help:"Also when it is not known to be safe."`
}

func (c *migrateSwitchCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.migration()
	if err != nil {
		return err
	}
	return c.decided(std)(decode[migrationapi.SwitchBackendResponse](read(client.SwitchBackend(ctx, migrationapi.SwitchBackendRequest{
		Kind: c.Kind, Name: c.Name, Block: c.Block, To: c.To, Force: c.Force,
	}))))
}

type migrateRollbackCommand struct {
	migrateFlags
	Kind  string `arg:"" enum:"store,service,topic" help:"store, service or topic."`
	Name  string `arg:"" help:"Which one."`
	Block string `enum:"messaging,mesh," default:"" help:"Of a service: messaging or mesh. Default: what was decided."`
}

func (c *migrateRollbackCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.migration()
	if err != nil {
		return err
	}
	return c.decided(std)(decode[migrationapi.SwitchBackendResponse](read(client.RollbackBackend(ctx, migrationapi.RollbackBackendRequest{
		Kind: c.Kind, Name: c.Name, Block: c.Block,
	}))))
}

// decided prints what was decided, and which restart it takes.
func (f *migrateFlags) decided(std *stdio) func(migrationapi.SwitchBackendResponse, error) error {
	return func(answer migrationapi.SwitchBackendResponse, err error) error {
		if err != nil {
			return err
		}
		return f.print(std, answer, func(t *table) {
			for i := range answer.Items {
				m := &answer.Items[i]
				t.line(strings.TrimSpace(fmt.Sprintf("%s %s (%s): runs on %s, and on %s from the next start", m.Kind, m.Name, m.Block, m.Running, m.Next)))
			}
			t.line(answer.Restart)
		})
	}
}
