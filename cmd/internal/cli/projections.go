package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/services/events/eventsapi"
)

type projectionsCommand struct {
	List    projectionsListCommand    `cmd:"" help:"List the versions of projections, and how far each is."`
	Pause   projectionsPauseCommand   `cmd:"" help:"Have no version of a projection changed any more."`
	Resume  projectionsResumeCommand  `cmd:"" help:"Have a paused projection go on."`
	Rebuild projectionsRebuildCommand `cmd:"" help:"Build a version beside the live one, and swap to it when it has caught up."`
	Swap    projectionsSwapCommand    `cmd:"" help:"Make a version the live one: one that was held back, or one that was live before."`
	Drop    projectionsDropCommand    `cmd:"" help:"Remove a version with its data."`
}

// projections is a client of the node's events service.
func (f nodeFlag) projections() (*eventsapi.Client, error) {
	client, base, err := f.client()
	if err != nil {
		return nil, err
	}
	return eventsapi.NewClient(base, eventsapi.WithHTTPClient(client))
}

// projectionFlags name a projection.
type projectionFlags struct {
	nodeFlag
	outputFlag
	Name string `arg:"" help:"Name of the projection."`
}

// versions prints the versions of projections.
func (f outputFlag) versions(std *stdio, answer eventsapi.ProjectionsResponse) error {
	return f.print(std, answer, func(t *table) {
		t.row("PROJECTION", "VERSION", "STATE", "POSITION", "LAG", "AGE", "PARKED", "REVISION", "NOTE")
		for _, v := range answer.Versions {
			t.row(v.Name, v.Version, v.State, v.Position, v.Lag, short(v.AgeSeconds), v.Parked, v.Revision, noteOn(v))
		}
	})
}

// short is a time as people say it.
func short(n float64) string {
	switch d := seconds(n); {
	case d == 0:
		return "-"
	case d > time.Minute:
		return d.Round(time.Second).String()
	default:
		return d.Round(10 * time.Millisecond).String()
	}
}

// noteOn is what the columns do not tell.
func noteOn(v eventsapi.ProjectionVersion) string {
	switch {
	case v.State == "building" && v.Parked > 0:
		return "not swapped by itself: release its parked streams"
	case v.State == "building":
		return estimate(v)
	case v.State == "ready":
		return fmt.Sprintf("bannou projections swap %s %d", v.Name, v.Version)
	case v.State == "paused" && v.Live:
		return "live"
	case v.State == "standby" && v.Erased > 0:
		return fmt.Sprintf("%d subjects erased since it was begun: drop it where it has personal data", v.Erased)
	case !v.Followed && v.State != "paused" && v.State != "dropping":
		return fmt.Sprintf("nobody follows it yet: a program with revision %d of it does", v.Revision)
	case v.Live && v.Erased > 0:
		return fmt.Sprintf("%d subjects erased since it was begun: rebuild it where it has personal data", v.Erased)
	case v.Inline:
		return "inline"
	default:
		return ""
	}
}

func estimate(v eventsapi.ProjectionVersion) string {
	if v.Rate == 0 {
		return "not begun"
	}
	if v.RemainingSeconds == 0 && v.Lag > 0 {
		return fmt.Sprintf("%.0f/s, and as many are appended", v.Rate)
	}
	return fmt.Sprintf("%.0f/s, %s left", v.Rate, short(v.RemainingSeconds))
}

type projectionsListCommand struct {
	nodeFlag
	outputFlag
	Name string `arg:"" optional:"" help:"Only this projection."`
}

func (c *projectionsListCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.projections()
	if err != nil {
		return err
	}
	answer, err := decode[eventsapi.ProjectionsResponse](read(client.ListProjections(ctx, eventsapi.ListProjectionsRequest{Name: c.Name})))
	if err != nil {
		return err
	}
	return c.versions(std, answer)
}

type projectionsPauseCommand struct{ projectionFlags }

func (c *projectionsPauseCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.projections()
	if err != nil {
		return err
	}
	answer, err := decode[eventsapi.ProjectionsResponse](read(client.PauseProjection(ctx, eventsapi.ProjectionRequest{Name: c.Name})))
	if err != nil {
		return err
	}
	return c.versions(std, answer)
}

type projectionsResumeCommand struct{ projectionFlags }

func (c *projectionsResumeCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.projections()
	if err != nil {
		return err
	}
	answer, err := decode[eventsapi.ProjectionsResponse](read(client.ResumeProjection(ctx, eventsapi.ProjectionRequest{Name: c.Name})))
	if err != nil {
		return err
	}
	return c.versions(std, answer)
}

type projectionsRebuildCommand struct {
	projectionFlags
	Hold bool          `help:"Do not swap to it when it has caught up."`
	Wait bool          `default:"true" negatable:"" help:"Show how far it is until it is built. Interrupted, or with --no-wait, it is built all the same."`
	Poll time.Duration `default:"250ms" help:"How often the node is asked how far it is."`
}

// Run ends when the version is built.
func (c *projectionsRebuildCommand) Run(ctx context.Context, std *stdio) error {
	if c.Poll < 10*time.Millisecond {
		return usageError{fmt.Errorf("--poll %s: choose 10ms or more", c.Poll)}
	}
	client, err := c.projections()
	if err != nil {
		return err
	}
	answer, err := decode[eventsapi.ProjectionsResponse](read(
		client.RebuildProjection(ctx, eventsapi.RebuildProjectionRequest{Name: c.Name, Hold: c.Hold})))
	if err != nil {
		return err
	}
	if c.Wait {
		if answer, err = c.wait(ctx, std, client, answer); err != nil {
			return err
		}
	}
	return c.versions(std, answer)
}

// wait shows how far a version is, until it is built.
func (c *projectionsRebuildCommand) wait(ctx context.Context, std *stdio, client *eventsapi.Client, answer eventsapi.ProjectionsResponse) (eventsapi.ProjectionsResponse, error) {
	bar := newProgress(std.err)
	defer bar.end()
	tick := time.NewTicker(c.Poll)
	defer tick.Stop()
	for number := answer.Version; ; {
		built := find(answer, number)
		switch {
		case built == nil || built.State == "dropping":
			return answer, fmt.Errorf("version %d was dropped while it was built", number)
		case built.Live || built.State == "ready" || built.State == "standby":
			return answer, nil
		case built.State == "paused":
			return answer, fmt.Errorf("%s is paused: resume it, and version %d is built on", c.Name, number)
		case built.Parked > 0 && built.Lag == 0:
			return answer, fmt.Errorf("version %d has caught up, but leaves out %d parked streams: release them, or swap to it as it is", number, built.Parked)
		}
		bar.show(built.Position, built.Total, fmt.Sprintf("version %d: %s", number, noteOn(*built)))
		select {
		case <-ctx.Done():
			return answer, errors.Join(fmt.Errorf("version %d is built on; list tells how far it is", number), ctx.Err())
		case <-tick.C:
		}
		var err error
		if answer, err = decode[eventsapi.ProjectionsResponse](read(client.ListProjections(ctx, eventsapi.ListProjectionsRequest{Name: c.Name}))); err != nil {
			return answer, err
		}
	}
}

func find(answer eventsapi.ProjectionsResponse, number int) *eventsapi.ProjectionVersion {
	for i := range answer.Versions {
		if answer.Versions[i].Version == number {
			return &answer.Versions[i]
		}
	}
	return nil
}

type projectionsSwapCommand struct {
	projectionFlags
	Version int `arg:"" help:"Number of the version."`
}

func (c *projectionsSwapCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.projections()
	if err != nil {
		return err
	}
	answer, err := decode[eventsapi.ProjectionsResponse](read(
		client.SwapProjection(ctx, eventsapi.ProjectionVersionRequest{Name: c.Name, Version: c.Version})))
	if err != nil {
		return err
	}
	return c.versions(std, answer)
}

type projectionsDropCommand struct {
	projectionFlags
	Version int  `arg:"" help:"Number of the version."`
	Yes     bool `short:"y" help:"Do not ask."`
}

func (c *projectionsDropCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.projections()
	if err != nil {
		return err
	}
	if !c.Yes {
		if err := confirm(std, fmt.Sprintf("remove version %d of %s with its data?", c.Version, c.Name)); err != nil {
			return err
		}
	}
	answer, err := decode[eventsapi.ProjectionsResponse](read(
		client.DropProjection(ctx, eventsapi.ProjectionVersionRequest{Name: c.Name, Version: c.Version})))
	if err != nil {
		return err
	}
	return c.versions(std, answer)
}
