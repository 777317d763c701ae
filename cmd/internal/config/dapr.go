package config

import (
	"errors"
	"fmt"
	"net"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// Dapr configures the two ways in which a node stands beside Dapr: the drivers over a sidecar, and the facade, which is Dapr's HTTP API for one
// app that drops its sidecar.
type Dapr struct {
	Enabled *bool   `help:"There is a sidecar of Dapr: what of messaging, state and mesh nothing else is chosen for is on it. false: there is none, and to choose it anywhere is an error. Default: as the backends say."`
	Sidecar Sidecar `embed:"" prefix:"sidecar-"`

	Listen           string   `help:"Address to serve Dapr's HTTP API on for one app, such as 127.0.0.1:3501. Default: it is not served."`
	AppID            string   `name:"app-id" help:"That app's name in the mesh. Its keys and queues carry it, as with Dapr."`
	GRPCListen       string   `name:"grpc-listen" help:"Address to serve Dapr's gRPC API on beside it, such as 127.0.0.1:50001. Default: it is not served."`
	AppAddress       string   `name:"app-address" help:"host:port where the app takes events and calls. Default: it takes none."`
	AppProtocol      string   `name:"app-protocol" default:"http" help:"What the app speaks there: http or grpc."`
	AppCallsListen   string   `name:"app-calls-listen" help:"Address on which this node takes the calls of others for the app, and passes them on: for an app that listens on loopback alone, or speaks gRPC. It is what the mesh knows as the app's address then. Default: others call the app where it listens."`
	Stores           []string `help:"Stores of the node that the app may use. Those of component files are limited by their scopes. Default: all; none with the word none."`
	PublishTopics    []string `name:"publish-topics" help:"Topics of the node's bus that the app may publish to. Those of component files are limited as with Dapr: allowedTopics, publishingScopes, subscriptionScopes. Default: all; none with the word none."`
	SubscribeTopics  []string `name:"subscribe-topics" help:"Topics of the node's bus that the app may subscribe to. Default: all; none with the word none."`
	ResourcesPath    string   `name:"resources-path" help:"Folder with Dapr's YAML files of components and subscriptions. The stores of the node and its bus, as bannou-pubsub, are there beside them."`
	APIToken         string   `name:"api-token" help:"What the app shows in the header dapr-api-token. Other users of the machine see flags: prefer the variable."`
	AppAPIToken      string   `name:"app-api-token" help:"What is shown to the app in the same header."`
	RetryMaxAttempts int      `name:"retry-max-attempts" default:"-1" help:"Redeliveries of an event that the app failed at. -1: as messaging.retryMaxAttempts. 0: none, as Dapr without a resiliency policy."`
}

func (c *Config) checkDapr() error {
	d := &c.Dapr
	if d.Listen == "" {
		if d.AppID != "" || d.AppAddress != "" || d.ResourcesPath != "" || d.GRPCListen != "" || d.AppCallsListen != "" {
			return errors.New("--dapr-app-id, --dapr-app-address, --dapr-grpc-listen, --dapr-app-calls-listen and --dapr-resources-path are for Dapr's API, which is served where --dapr-listen says: set it, or leave them out")
		}
		return nil
	}
	for _, listen := range []struct{ flag, at string }{{"--dapr-listen", d.Listen}, {"--dapr-grpc-listen", d.GRPCListen}} {
		if listen.at == "" {
			continue
		}
		if err := checkHostPort(listen.at); err != nil {
			return fmt.Errorf("%s %q: %w", listen.flag, listen.at, err)
		}
		if d.APIToken == "" && !c.Insecure && !onLoopback(listen.at) {
			return fmt.Errorf("%s %s is beyond loopback, and whoever reaches it may use what the app may: set --dapr-api-token, or listen on 127.0.0.1, or give --insecure where the network keeps strangers out", listen.flag, listen.at)
		}
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
	if err := c.checkDaprApp(); err != nil {
		return err
	}
	if d.RetryMaxAttempts < -1 || d.RetryMaxAttempts > 1000 {
		return fmt.Errorf("--dapr-retry-max-attempts %d: choose from 0 to 1000, or -1 for that of messaging", d.RetryMaxAttempts)
	}
	if d.RetryMaxAttempts == -1 {
		d.RetryMaxAttempts = c.Messaging.RetryMaxAttempts
	}
	return nil
}

// checkDaprApp checks what is said of the app itself.
func (c *Config) checkDaprApp() error {
	d := &c.Dapr
	if d.AppProtocol != "http" && d.AppProtocol != "grpc" {
		return fmt.Errorf("--dapr-app-protocol %q: choose http or grpc", d.AppProtocol)
	}
	if d.AppAddress == "" {
		if d.AppCallsListen != "" {
			return errors.New("--dapr-app-calls-listen takes calls for an app, and nobody said where it is: set --dapr-app-address")
		}
		return nil
	}
	if err := checkHostPort(d.AppAddress); err != nil {
		return fmt.Errorf("--dapr-app-address %q: %w", d.AppAddress, err)
	}
	if host, _, _ := net.SplitHostPort(d.AppAddress); host == "" || net.ParseIP(host).IsUnspecified() {
		return fmt.Errorf("--dapr-app-address %s names no machine: write the host at which the app is called, such as 127.0.0.1", d.AppAddress)
	}
	if d.AppCallsListen == "" {
		return nil
	}
	if err := checkHostPort(d.AppCallsListen); err != nil {
		return fmt.Errorf("--dapr-app-calls-listen %q: %w", d.AppCallsListen, err)
	}
	if !c.Insecure && !onLoopback(d.AppCallsListen) {
		return fmt.Errorf("--dapr-app-calls-listen %s is beyond loopback, and whoever reaches it may call the app: give --insecure where the network keeps strangers out, or listen on 127.0.0.1", d.AppCallsListen)
	}
	if host, _, _ := net.SplitHostPort(d.AppCallsListen); (host == "" || net.ParseIP(host).IsUnspecified()) && c.Advertise == "" {
		return fmt.Errorf("--dapr-app-calls-listen %s names no machine that others could call: write one, or set --advertise", d.AppCallsListen)
	}
	return nil
}

// Limited is a list of names that limits: nil without one, and empty with the word none.
func Limited(names []string) []string {
	if len(names) == 0 {
		return nil
	}
	if len(names) == 1 && names[0] == "none" {
		return []string{}
	}
	return names
}
