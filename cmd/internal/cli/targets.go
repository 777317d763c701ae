package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/services/mesh/meshapi"
)

type targetsCommand struct {
	nodeFlag
	outputFlag
	AppID string `arg:"" optional:"" name:"app-id" help:"Only this target."`
}

func (c *targetsCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.mesh()
	if err != nil {
		return err
	}
	answer, err := decode[meshapi.TargetsResponse](read(client.Targets(ctx, meshapi.TargetsRequest{AppID: c.AppID})))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		t.line(directoryLine(answer.Directory))
		t.row("TARGET", "INSTANCE", "STATE", "IN FLIGHT", "LATENCY", "FAILING", "EJECTED FOR", "REQUESTS")
		for _, target := range answer.Targets {
			name := target.AppID
			if target.Panic {
				name += " (panic)"
			}
			for _, in := range target.Instances {
				t.row(name, in.InstanceID, in.State, in.InFlight, latency(in.LatencyMs), fmt.Sprintf("%.0f%%", 100*in.FailureShare),
					ejected(in.EjectedForMs), in.Picks)
			}
		}
		for i := range answer.Targets {
			if told := resilience(&answer.Targets[i]); told != "" {
				t.line(answer.Targets[i].AppID + ": " + told)
			}
		}
	})
}

// resilience tells what was done about a target's failures; empty: nothing was.
func resilience(t *meshapi.Target) string {
	var told []string
	if t.Breaker != "closed" || t.BreakerOpened > 0 {
		told = append(told, fmt.Sprintf("its breaker is %s and opened %d times", t.Breaker, t.BreakerOpened))
	}
	if t.Retries > 0 || t.RetriesRefused > 0 {
		told = append(told, fmt.Sprintf("%d further attempts, %d refused by the budget", t.Retries, t.RetriesRefused))
	}
	if t.Hedges > 0 {
		told = append(told, fmt.Sprintf("%d hedges, %d won", t.Hedges, t.HedgesWon))
	}
	if t.Calls > 0 || t.Waiting > 0 || t.Overloaded > 0 {
		told = append(told, fmt.Sprintf("%d calls in the bulkhead, %d wait, %d turned away", t.Calls, t.Waiting, t.Overloaded))
	}
	return strings.Join(told, "; ")
}

// directoryLine tells how fresh the node's copy of the registry is.
func directoryLine(d meshapi.DirectoryState) string {
	read := "the registry was never read"
	if d.AgeSeconds != nil {
		read = "read " + seconds(*d.AgeSeconds).Round(time.Second).String() + " ago"
	}
	return fmt.Sprintf("directory version %d, %d endpoints, mappings version %d, %s", d.Version, d.Endpoints, d.MappingsVersion, read)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func latency(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return seconds(ms / 1000).Round(10 * time.Microsecond).String()
}

func ejected(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return seconds(ms / 1000).Round(100 * time.Millisecond).String()
}
