package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// AllServices are the services that this binary holds, in the order of the documentation.
func AllServices() []string {
	return []string{"messaging", "state", "mesh", "events", "accounts", "auth", "permissions", "connect", "sagas", "game-session"}
}

// Resolve checks the settings against each other and brings them into one form: Services is spelled out, aliases and the
// true/false variants of the backend choices are gone.
func (c *Config) Resolve() error {
	c.followTopics()
	return errors.Join(
		c.resolveServices(),
		c.resolveBackends(),
		c.checkNames(),
		c.checkAddresses(),
		c.checkNumbers(),
		c.State.checkRedis(),
		c.checkStores(),
		c.checkMirrors(),
		c.checkAccess(),
		c.checkSecurity(),
		c.checkResilience(),
		c.resolveEvents(),
		c.checkAuth(),
		c.checkConnect(),
		c.checkDapr(),
		c.resolveSidecar(),
		c.checkDaprTopics(),
	)
}

// known are the services that this program holds.
func (c *Config) known() []string {
	if c.Own == "" {
		return AllServices()
	}
	return append(AllServices(), c.Own)
}

func (c *Config) resolveServices() error {
	known := c.known()
	if slices.Equal(c.Services, []string{"all"}) {
		c.Services = known
		return nil
	}
	seen := map[string]bool{}
	for _, s := range c.Services {
		if !slices.Contains(known, s) {
			return fmt.Errorf("unknown service %q: choose from %s, or all", s, strings.Join(known, ", "))
		}
		if seen[s] {
			return fmt.Errorf("service %q is named twice", s)
		}
		seen[s] = true
	}
	if len(c.Services) == 0 {
		return fmt.Errorf("no service to run: choose from %s, or all", strings.Join(known, ", "))
	}
	return nil
}

func (c *Config) messagingBackend() error {
	switch c.Messaging.Backend {
	case "memory":
		return nil
	case "rabbitmq":
		if len(c.Messaging.RabbitMQURLs) == 0 {
			return errors.New("messaging backend rabbitmq needs an address: set --messaging-rabbitmq-urls amqp://user:password@host:5672/")
		}
		return nil
	case "redis":
		if len(c.Messaging.RedisSentinelURLs) > 0 {
			if c.Messaging.RedisMasterName == "" {
				return errors.New("--messaging-redis-sentinel-urls needs the name by which the Sentinels know the Redis: set --messaging-redis-master-name")
			}
			return nil
		}
		if c.Messaging.RedisURL == "" { // the Redis of the stores, in whichever way it is named
			c.Messaging.RedisURL = c.State.RedisURL
			c.Messaging.RedisSentinelURLs, c.Messaging.RedisMasterName = c.State.RedisSentinelURLs, c.State.RedisMasterName
		}
		if c.Messaging.RedisURL == "" && len(c.State.RedisClusterURLs) > 0 {
			return errors.New("messaging backend redis cannot be a Redis Cluster, which is where the stores are: set --messaging-redis-url to a single Redis, or choose rabbitmq")
		}
		if c.Messaging.RedisURL == "" && len(c.Messaging.RedisSentinelURLs) == 0 {
			return errors.New("messaging backend redis needs an address: set --messaging-redis-url redis://user:password@host:6379/0, or --state-redis-url for both")
		}
		return nil
	default:
		return fmt.Errorf("messaging backend %q is not one of this node's: choose memory, rabbitmq, redis or dapr", c.Messaging.Backend)
	}
}

// checkNames refuses what is set to nothing, as by a variable that a script left empty, where nothing is no choice.
func (c *Config) checkNames() error {
	switch {
	case c.AppID == "":
		return errors.New("--app-id is empty: choose a name such as bannou, or leave it out")
	case c.DataDir == "":
		return errors.New("--data-dir is empty: choose a folder such as ./.bannou, or leave it out")
	default:
		return nil
	}
}

func (c *Config) checkAddresses() error {
	var errs []error
	if err := checkHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("--listen %q: %w", c.Listen, err))
	} else if !c.Insecure && !c.Guarded() && !onLoopback(c.Listen) {
		errs = append(errs, fmt.Errorf("--listen %s is beyond loopback, and whoever reaches it may use this node: give it the mesh's token (--mesh-token-file) or certificates (--mesh-tls-cert-file, --mesh-tls-key-file, --mesh-tls-ca-file), or listen on 127.0.0.1, or give --insecure where the network keeps strangers out", c.Listen))
	}
	if c.Advertise != "" {
		host, _, err := net.SplitHostPort(c.Advertise)
		if err == nil && host == "" {
			err = errors.New("a host is missing")
		}
		if err == nil {
			err = checkHostPort(c.Advertise)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--advertise %q: %w", c.Advertise, err))
		}
	}
	for _, n := range c.Egress.Allow {
		if _, err := netip.ParsePrefix(n); err != nil {
			errs = append(errs, fmt.Errorf("--egress-allow %q is not a network: write it as 10.0.0.0/8", n))
		}
	}
	if n := c.Messaging.RedisWaitReplicas; n < 0 {
		errs = append(errs, fmt.Errorf("--messaging-redis-wait-replicas %d cannot be waited for: 0 waits for none", n))
	}
	return errors.Join(append(errs, c.checkURLs())...)
}

func (c *Config) checkURLs() error {
	var errs []error
	for _, setting := range []struct {
		flag    string
		urls    []string
		schemes []string
	}{
		{"messaging-rabbitmq-urls", c.Messaging.RabbitMQURLs, []string{"amqp", "amqps"}},
		{"messaging-rabbitmq-management-url", given(c.Messaging.RabbitMQManagementURL), []string{"http", "https"}},
		{"messaging-redis-url", given(c.Messaging.RedisURL), []string{"redis", "rediss", "unix"}},
		{"messaging-redis-sentinel-urls", c.Messaging.RedisSentinelURLs, []string{"redis", "rediss"}},
		{"state-redis-url", given(c.State.RedisURL), []string{"redis", "rediss", "unix"}},
		{"state-redis-cluster-urls", c.State.RedisClusterURLs, []string{"redis", "rediss"}},
		{"state-redis-sentinel-urls", c.State.RedisSentinelURLs, []string{"redis", "rediss"}},
		{"telemetry-otlp-endpoint", given(c.Telemetry.OTLPEndpoint), []string{"http", "https"}},
	} {
		for _, u := range setting.urls {
			if err := checkURL(u, setting.schemes...); err != nil {
				errs = append(errs, fmt.Errorf("--%s: %w", setting.flag, err))
			}
		}
	}
	return errors.Join(errs...)
}

// given is a setting's value, if it has one.
func given(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}

func onLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func checkHostPort(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("write it as host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n > 65535 {
		return fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	return nil
}

// checkURL never repeats the address, which may hold a password.
func checkURL(address string, schemes ...string) error {
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("not a URL")
	}
	if !slices.Contains(schemes, u.Scheme) {
		return fmt.Errorf("the URL begins with %s://", strings.Join(schemes, ":// or "))
	}
	return nil
}

func (c *Config) checkNumbers() error {
	for _, n := range []struct {
		flag              string
		value, least, max int
	}{
		{"--messaging-prefetch-count", c.Messaging.PrefetchCount, 1, 65535},
		{"--messaging-retry-max-attempts", c.Messaging.RetryMaxAttempts, 0, 1000},
		{"--mesh-ejection-failures", c.Mesh.EjectionFailures, 1, 1000},
		{"--mesh-ejection-percent", c.Mesh.EjectionPercent, 1, 100},
		{"--mesh-panic-percent", c.Mesh.PanicPercent, 0, 100},
		{"--mesh-max-connections", c.Mesh.MaxConnections, 1, 1_000_000},
		{"--mesh-probe-failures", c.Mesh.ProbeFailures, 1, 1000},
		{"--mesh-local-max-in-flight", c.Mesh.LocalMaxInFlight, 1, 1_000_000},
		{"--messaging-retry-delay-ms", c.Messaging.RetryDelayMs, 1, 86_400_000},
		{"--messaging-outbox-max-events", c.Messaging.OutboxMaxEvents, 1, 1_000_000_000},
		{"--messaging-outbox-max-bytes", c.Messaging.OutboxMaxBytes, 1, 1 << 40},
		{"--messaging-connection-retry-delay-ms", c.Messaging.ConnectionRetryDelayMs, 1, 60_000},
	} {
		if n.value < n.least || n.value > n.max {
			return fmt.Errorf("%s %d: choose from %d to %d", n.flag, n.value, n.least, n.max)
		}
	}
	if c.Messaging.OutboxAfter <= 0 || c.Messaging.OutboxAfter > time.Minute {
		return fmt.Errorf("--messaging-outbox-after %s: choose from 1ms to 1m", c.Messaging.OutboxAfter)
	}
	if c.Messaging.ErrorWindow <= 0 || c.Messaging.ErrorWindow > 24*time.Hour {
		return fmt.Errorf("--messaging-error-window %s: choose from 1ms to 24h", c.Messaging.ErrorWindow)
	}
	if r := c.Telemetry.SampleRatio; !(r >= 0 && r <= 1) { // NaN is neither
		return fmt.Errorf("--telemetry-sample-ratio %g: choose from 0 to 1", r)
	}
	if c.DrainTimeout <= 0 {
		return fmt.Errorf("--drain-timeout %s: choose a positive duration, such as 15s", c.DrainTimeout)
	}
	// Degraded after 60 s without a heartbeat: a longer interval would degrade a node that is well.
	if c.Mesh.HeartbeatInterval <= 0 || c.Mesh.HeartbeatInterval > 50*time.Second {
		return fmt.Errorf("--mesh-heartbeat-interval %s: choose from 1ms to 50s", c.Mesh.HeartbeatInterval)
	}
	return cmp.Or(c.checkMembership(), c.checkBalancing())
}

// checkMembership checks how this node is in the registry, and what it does there for others.
func (c *Config) checkMembership() error {
	m := &c.Mesh
	switch {
	case m.DrainNotice < 0:
		return fmt.Errorf("--mesh-drain-notice %s: choose 0 or a positive duration, such as 500ms", m.DrainNotice)
	case m.ProbeInterval != 0 && (m.ProbeInterval < time.Second || m.ProbeInterval > 30*time.Second):
		return fmt.Errorf("--mesh-probe-interval %s: choose 0 for never, or from 1s to 30s", m.ProbeInterval)
	case m.ProbeTimeout <= 0 || m.ProbeTimeout > time.Minute:
		return fmt.Errorf("--mesh-probe-timeout %s: choose from 1ms to 1m", m.ProbeTimeout)
	}
	return nil
}

func (c *Config) checkResilience() error {
	_, _, err := c.Mesh.Resilience.Compile()
	return err
}

func (c *Config) checkBalancing() error {
	m := &c.Mesh
	if m.Zone != "" {
		if err := mesh.ValidateName("zone", m.Zone); err != nil {
			return fmt.Errorf("--mesh-zone: %w", err)
		}
	}
	switch {
	case m.SlowStart < 0:
		return fmt.Errorf("--mesh-slow-start %s: choose 0 or a positive duration, such as 10s", m.SlowStart)
	case m.EjectionWindow <= 0:
		return fmt.Errorf("--mesh-ejection-window %s: choose a positive duration, such as 10s", m.EjectionWindow)
	case m.EjectionTime <= 0:
		return fmt.Errorf("--mesh-ejection-time %s: choose a positive duration, such as 10s", m.EjectionTime)
	}
	return nil
}
