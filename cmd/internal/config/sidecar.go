package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Sidecar configures the drivers over a sidecar of Dapr. Where a setting is empty, Dapr's own variable counts.
type Sidecar struct {
	Endpoint  string `help:"The sidecar's HTTP API, as http://host:port. Default: DAPR_HTTP_ENDPOINT, or 127.0.0.1 at the port DAPR_HTTP_PORT, or 3500."`
	Token     string `help:"What is shown to the sidecar in the header dapr-api-token. Default: DAPR_API_TOKEN. Other users of the machine see flags: prefer the variable."`
	AppListen string `name:"app-listen" help:"Address where the sidecar brings events and calls: what daprd was given as --app-port, such as 127.0.0.1:8080. Default: 127.0.0.1 at the port APP_PORT; without either, nothing can be subscribed to."`
	AppToken  string `name:"app-token" help:"What the sidecar shows there in the same header. Default: APP_API_TOKEN."`
	Rounding  bool   `help:"Let Dapr round the numbers of values that its HTTP API does not keep. Default: such a value is refused."`
	PubSub    string `name:"pubsub" default:"bannou-pubsub" help:"The component of Dapr that is the broker."`

	StateStore      string   `name:"state-store" help:"The component of Dapr that keeps the stores, with keys that begin with the store's name and a colon. Default: each store is a component of its own name, with its keys as they are."`
	StateComponents []string `name:"state-components" help:"Stores that are components of other names, with their keys as they are: accounts=people,orders=orders-db."`
}

// resolveSidecar fills in what Dapr's own variables say, and checks the rest.
func (c *Config) resolveSidecar() error {
	s := &c.Dapr.Sidecar
	asks := c.UsesDapr() || c.comparesWithDapr()
	if !asks && s.AppListen == "" {
		return nil
	}
	s.Endpoint = strings.TrimSuffix(cmp.Or(s.Endpoint, os.Getenv("DAPR_HTTP_ENDPOINT"), "http://127.0.0.1:"+cmp.Or(os.Getenv("DAPR_HTTP_PORT"), "3500")), "/")
	s.Token = cmp.Or(s.Token, os.Getenv("DAPR_API_TOKEN"))
	s.AppToken = cmp.Or(s.AppToken, os.Getenv("APP_API_TOKEN"))
	if port := os.Getenv("APP_PORT"); s.AppListen == "" && port != "" && c.UsesDapr() {
		s.AppListen = net.JoinHostPort("127.0.0.1", port)
	}
	if err := checkURL(s.Endpoint, "http", "https"); err != nil {
		return fmt.Errorf("--dapr-sidecar-endpoint: %w", err)
	}
	if asks && c.Listen != "" && s.Endpoint == "http://"+c.Listen {
		return fmt.Errorf("the sidecar is said to be at %s, where this node listens itself: set DAPR_HTTP_PORT or --dapr-sidecar-endpoint, or --listen", c.Listen)
	}
	if s.PubSub == "" {
		return errors.New("--dapr-sidecar-pubsub is empty: name the component of Dapr that is the broker")
	}
	return errors.Join(c.checkAppListen(), c.checkComponents())
}

func (c *Config) checkAppListen() error {
	s := &c.Dapr.Sidecar
	if s.AppListen == "" {
		return nil
	}
	if err := checkHostPort(s.AppListen); err != nil {
		return fmt.Errorf("--dapr-sidecar-app-listen %q: %w", s.AppListen, err)
	}
	if s.AppToken == "" && !c.Insecure && !onLoopback(s.AppListen) {
		return fmt.Errorf("--dapr-sidecar-app-listen %s is beyond loopback, and whoever reaches it may bring events: set --dapr-sidecar-app-token, or listen on 127.0.0.1, or give --insecure where the network keeps strangers out", s.AppListen)
	}
	return nil
}

// comparesWithDapr reports whether a native store is compared with one that the sidecar keeps.
func (c *Config) comparesWithDapr() bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(c.State.Mirrors)), func(m Mirror) bool { return m.To == onDapr })
}

// checkComponents refuses stores whose keys could meet.
func (c *Config) checkComponents() error {
	s := &c.Dapr.Sidecar
	stores, places := map[string]string{}, map[string]string{}
	for _, entry := range s.StateComponents {
		store, component, found := strings.Cut(entry, "=")
		if !found || store == "" || component == "" {
			return fmt.Errorf("--dapr-sidecar-state-components says %q: write store=component", entry)
		}
		if other, twice := places[store]; twice {
			return fmt.Errorf("--dapr-sidecar-state-components puts the store %s into the component %s and into %s: name one", store, other, component)
		}
		places[store] = component
		if other, taken := stores[component]; taken {
			return fmt.Errorf("--dapr-sidecar-state-components puts the stores %s and %s into the component %s, where their keys could meet: use --dapr-sidecar-state-store for a component that stores share", other, store, component)
		}
		if component == s.StateStore {
			return fmt.Errorf("--dapr-sidecar-state-components puts the store %s into the component %s with its keys as they are, and --dapr-sidecar-state-store the others, where their keys could meet: name another component", store, component)
		}
		stores[component] = store
	}
	for _, name := range slices.Sorted(maps.Keys(c.AllStores())) {
		component, prefix := s.Component(name)
		if other, taken := stores[component]; taken && other != name && prefix == "" && c.StateOn(name) == onDapr {
			return fmt.Errorf("--dapr-sidecar-state-components puts the store %s into the component %s, which is that of the store %s, where their keys could meet: name a component for %s too", other, component, name, name)
		}
	}
	return nil
}

// Component is the component of Dapr that keeps a store, and what its keys there begin with.
func (s *Sidecar) Component(store string) (component, prefix string) {
	if i := slices.IndexFunc(s.StateComponents, func(entry string) bool { return strings.HasPrefix(entry, store+"=") }); i >= 0 {
		return strings.TrimPrefix(s.StateComponents[i], store+"="), ""
	}
	if s.StateStore != "" {
		return s.StateStore, store + ":"
	}
	return store, ""
}

// AppPort is the port where the sidecar brings events; 0: nowhere.
func (s *Sidecar) AppPort() int {
	_, port, err := net.SplitHostPort(s.AppListen)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return 0
	}
	return n
}
