package config

import (
	"errors"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// Dapr configures the two ways in which a node stands beside Dapr: the drivers over a sidecar, and the facade, which is Dapr's HTTP API for one
// app that drops its sidecar.
type Dapr struct {
	Enabled *bool   `help:"There is a sidecar of Dapr: what of messaging, state and mesh nothing else is chosen for is on it. false: there is none, and to choose it anywhere is an error. Default: as the backends say."`
	Sidecar Sidecar `embed:"" prefix:"sidecar-"`

	Listen           string `help:"Address to serve Dapr's HTTP API on for one app, such as 127.0.0.1:3501. Default: it is not served."`
	AppID            string `name:"app-id" help:"That app's name in the mesh. Its keys and queues carry it, as with Dapr."`
	AppAddress       string `name:"app-address" help:"host:port where the app takes events and calls. Default: it takes none."`
	ResourcesPath    string `name:"resources-path" help:"Folder with Dapr's YAML files of components and subscriptions. The stores of the node and its bus, as bannou-pubsub, are there beside them."`
	APIToken         string `name:"api-token" help:"What the app shows in the header dapr-api-token. Other users of the machine see flags: prefer the variable."`
	AppAPIToken      string `name:"app-api-token" help:"What is shown to the app in the same header."`
	RetryMaxAttempts int    `name:"retry-max-attempts" default:"-1" help:"Redeliveries of an event that the app failed at. -1: as messaging.retryMaxAttempts. 0: none, as Dapr without a resiliency policy."`
}

func (c *Config) checkDapr() error {
	d := &c.Dapr
	if d.Listen == "" {
		if d.AppID != "" || d.AppAddress != "" || d.ResourcesPath != "" {
			return errors.New("--dapr-app-id, --dapr-app-address and --dapr-resources-path are for Dapr's API, which is served where --dapr-listen says: set it, or leave them out")
		}
		return nil
	}
	if err := checkHostPort(d.Listen); err != nil {
		return fmt.Errorf("--dapr-listen %q: %w", d.Listen, err)
	}
	if d.APIToken == "" && !c.Insecure && !onLoopback(d.Listen) {
		return fmt.Errorf("--dapr-listen %s is beyond loopback, and whoever reaches it may use what the app may: set --dapr-api-token, or listen on 127.0.0.1, or give --insecure where the network keeps strangers out", d.Listen)
	}
	if d.AppID == "" {
		return errors.New("--dapr-listen serves one app: name it with --dapr-app-id")
	}
	if err := mesh.ValidateName("appId", d.AppID); err != nil {
		return fmt.Errorf("--dapr-app-id: %w", err)
	}
	if d.AppID == c.AppID {
		return fmt.Errorf("--dapr-app-id %s is this node's own app-id: the app is another program and has a name of its own", d.AppID)
	}
	if d.AppAddress != "" {
		if err := checkHostPort(d.AppAddress); err != nil {
			return fmt.Errorf("--dapr-app-address %q: %w", d.AppAddress, err)
		}
	}
	if d.RetryMaxAttempts < -1 || d.RetryMaxAttempts > 1000 {
		return fmt.Errorf("--dapr-retry-max-attempts %d: choose from 0 to 1000, or -1 for that of messaging", d.RetryMaxAttempts)
	}
	if d.RetryMaxAttempts == -1 {
		d.RetryMaxAttempts = c.Messaging.RetryMaxAttempts
	}
	return nil
}
