package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/mesh/meshapi"
)

type endpointsCommand struct {
	nodeFlag
	outputFlag
	AppID string        `arg:"" optional:"" name:"app-id" help:"Only the endpoints of this app-id."`
	All   bool          `help:"Those in bad health too."`
	Watch bool          `short:"w" help:"Go on until interrupted, with those in bad health too: a live table on a terminal, elsewhere a line for each change."`
	Every time.Duration `default:"1s" help:"How often --watch asks the node."`
}

func (c *endpointsCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.mesh()
	if err != nil {
		return err
	}
	if c.Watch {
		if c.Every < 10*time.Millisecond {
			return usageError{fmt.Errorf("--every %s: choose 10ms or more", c.Every)}
		}
		c.All = true
		w := watcher{every: c.Every, fetch: func(ctx context.Context) ([]mesh.Endpoint, error) {
			answer, err := c.fetch(ctx, client)
			return answer.Endpoints, err
		}}
		if c.Output != "json" && isTerminal(std.out) {
			return w.run(ctx, newLiveTable(std.out, c.Node))
		}
		return w.run(ctx, newChangeLog(std, c.Output == "json"))
	}
	answer, err := c.fetch(ctx, client)
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) { t.endpoints(answer.Endpoints, time.Now()) })
}

func (c *endpointsCommand) fetch(ctx context.Context, client *meshapi.Client) (meshapi.EndpointsResponse, error) {
	if c.AppID != "" {
		return decode[meshapi.EndpointsResponse](read(
			client.GetEndpoints(ctx, meshapi.GetEndpointsRequest{AppID: c.AppID, IncludeUnhealthy: c.All})))
	}
	return decode[meshapi.EndpointsResponse](read(
		client.ListEndpoints(ctx, meshapi.ListEndpointsRequest{IncludeUnhealthy: c.All})))
}

// endpoints are the rows of a list of endpoints.
func (t *table) endpoints(all []mesh.Endpoint, now time.Time) {
	t.row("APP-ID", "INSTANCE", "ADDRESS", "STATUS", "LOAD", "REQUESTS", "SEEN", "SERVICES")
	for i := range all {
		e := &all[i]
		t.row(e.AppID, e.InstanceID, address(e), e.Status, load(e), requests(e), ago(e.LastSeen, now), strings.Join(e.Services, ","))
	}
}

func address(e *mesh.Endpoint) string { return net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) }

func load(e *mesh.Endpoint) string { return fmt.Sprintf("%.0f%%", e.LoadPercent) }

// requests are those under way, of those that are full load.
func requests(e *mesh.Endpoint) string {
	if e.MaxConnections == 0 {
		return strconv.Itoa(e.CurrentConnections)
	}
	return fmt.Sprintf("%d/%d", e.CurrentConnections, e.MaxConnections)
}

// sortedIDs are app-id and instance id of endpoints, in order.
func sortedIDs(all map[[2]string]mesh.Endpoint) [][2]string {
	return slices.SortedFunc(maps.Keys(all), func(a, b [2]string) int {
		return cmp.Or(strings.Compare(a[0], b[0]), strings.Compare(a[1], b[1]))
	})
}
