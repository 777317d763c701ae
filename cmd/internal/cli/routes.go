package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/mesh/meshapi"
)

type routesCommand struct {
	nodeFlag
	outputFlag
	Service string `arg:"" optional:"" help:"Only this service."`
}

// routes is the way of each service to those who take its calls.
type routes struct {
	Version      int64   `json:"version"`      // of the mappings in force
	NodeVersion  int64   `json:"nodeVersion"`  // of those by which the node asked routes
	DefaultAppID string  `json:"defaultAppId"` // of services that are not mapped
	Routes       []route `json:"routes"`       // by service
}

type route struct {
	Service   string          `json:"service"`
	AppID     string          `json:"appId"`
	Mapped    bool            `json:"mapped"` // false: it is on the default app-id
	Endpoints []mesh.Endpoint `json:"endpoints"`
}

func (c *routesCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.mesh()
	if err != nil {
		return err
	}
	mappings, err := decode[mesh.Mappings](read(client.GetMappings(ctx, meshapi.EmptyRequest{})))
	if err != nil {
		return err
	}
	listed, err := decode[meshapi.EndpointsResponse](read(client.ListEndpoints(ctx, meshapi.ListEndpointsRequest{IncludeUnhealthy: true})))
	if err != nil {
		return err
	}
	node, err := decode[meshapi.TargetsResponse](read(client.Targets(ctx, meshapi.TargetsRequest{})))
	if err != nil {
		return err
	}
	answer := routesOf(mappings, listed.Endpoints, c.Service)
	answer.NodeVersion = node.Directory.MappingsVersion
	return c.print(std, answer, func(t *table) {
		t.line(fmt.Sprintf("mappings version %d, services that are not mapped are on %s", answer.Version, printable(answer.DefaultAppID)))
		if answer.NodeVersion != answer.Version {
			t.line(fmt.Sprintf("this node routes by version %d yet", answer.NodeVersion))
		}
		t.row("SERVICE", "APP-ID", "BY", "ENDPOINTS")
		for _, r := range answer.Routes {
			by := "default"
			if r.Mapped {
				by = "mapping"
			}
			t.row(r.Service, r.AppID, by, takers(r.Endpoints))
		}
	})
}

// routesOf finds the way of every service that is mapped or that an instance offers.
func routesOf(m mesh.Mappings, all []mesh.Endpoint, only string) routes {
	services := map[string]struct{}{}
	byApp := map[string][]mesh.Endpoint{}
	for s := range m.Services {
		services[s] = struct{}{}
	}
	for _, e := range all {
		byApp[e.AppID] = append(byApp[e.AppID], e)
		for _, s := range e.Services {
			services[s] = struct{}{}
		}
	}
	answer := routes{Version: m.Version, DefaultAppID: mesh.Mappings{DefaultAppID: m.DefaultAppID}.AppID(""), Routes: []route{}}
	for _, s := range slices.Sorted(maps.Keys(services)) {
		if only != "" && s != only {
			continue
		}
		_, mapped := m.Services[s]
		r := route{Service: s, AppID: m.AppID(s), Mapped: mapped, Endpoints: []mesh.Endpoint{}}
		usable := mesh.Usable(byApp[r.AppID])
		for _, e := range usable {
			if slices.Contains(e.Services, s) || len(e.Services) == 0 {
				r.Endpoints = append(r.Endpoints, e)
			}
		}
		if len(r.Endpoints) == 0 { // whom a call goes to where no instance says that it runs the service
			r.Endpoints = append(r.Endpoints, usable...)
		}
		answer.Routes = append(answer.Routes, r)
	}
	return answer
}

// takers are the addresses that calls go to.
func takers(endpoints []mesh.Endpoint) string {
	if len(endpoints) == 0 {
		return "none"
	}
	var all []string
	for i := range endpoints {
		one := address(&endpoints[i])
		if s := endpoints[i].Status; s != mesh.StatusHealthy {
			one += " (" + string(s) + ")"
		}
		all = append(all, one)
	}
	return strings.Join(all, ", ")
}
