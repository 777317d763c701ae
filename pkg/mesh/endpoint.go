package mesh

import (
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Status is what an instance says of itself, or what its silence says of it.
type Status string

// The statuses. An empty one in a registration means healthy.
const (
	StatusHealthy      Status = "healthy"      // takes requests
	StatusDegraded     Status = "degraded"     // takes requests if no healthy instance is there
	StatusUnavailable  Status = "unavailable"  // takes none
	StatusShuttingDown Status = "shuttingDown" // finishes what it has, takes none
)

// Valid reports whether s is one of the four statuses.
func (s Status) Valid() bool {
	switch s {
	case StatusHealthy, StatusDegraded, StatusUnavailable, StatusShuttingDown:
		return true
	default:
		return false
	}
}

// How long an instance lives without a heartbeat.
const (
	HeartbeatInterval = 30 * time.Second // how often an instance should send one
	DegradedAfter     = 60 * time.Second // quiet for as long, it counts as degraded
	GoneAfter         = 90 * time.Second // quiet for as long, it is forgotten
)

// MaxNameLength bounds an app-id, an instance id and a service's name, in bytes.
const MaxNameLength = 128

// maxKeyLength is what the state layer takes as a key.
const maxKeyLength = 255

// An Endpoint is one instance of an app-id: where it listens and how it is.
type Endpoint struct {
	AppID              string    `json:"appId"`
	InstanceID         string    `json:"instanceId"`
	Host               string    `json:"host"` // a name or an address, no scheme, no port; IPv6 without brackets
	Port               int       `json:"port"`
	ExternalHost       string    `json:"externalHost,omitzero"` // how it is reached from outside, if it is
	Status             Status    `json:"status"`
	LoadPercent        float64   `json:"loadPercent"` // 0 to 100
	MaxConnections     int       `json:"maxConnections"`
	CurrentConnections int       `json:"currentConnections"`
	LastSeen           time.Time `json:"lastSeen"`      // when it last gave a sign of life, by its own clock or the registry's
	RegisteredAt       time.Time `json:"registeredAt"`  // when this instance first came
	Services           []string  `json:"services"`      // what it runs; none listed means not known
	Zone               string    `json:"zone,omitzero"` // where it runs, such as "eu-1a"; empty: not known
}

// Address is host:port, ready for a URL or a dialler.
func (e *Endpoint) Address() string { return net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) }

// Validate reports the first member that breaks a rule, as an *InvalidError: appId, instanceId, services and zone are
// lower-case letters, digits, dots and dashes, at most [MaxNameLength], beginning with a letter or digit; host is a
// name or address without scheme or port; port is 1 to 65535; loadPercent is 0 to 100; status is known or empty.
func (e *Endpoint) Validate() error {
	if err := validName("appId", e.AppID); err != nil {
		return err
	}
	if err := validName("instanceId", e.InstanceID); err != nil {
		return err
	}
	if n := len(registryKey(e.AppID, e.InstanceID)); n > maxKeyLength {
		return invalid("instanceId", "is too long together with appId: the two may have %d bytes, they have %d",
			len(e.AppID)+len(e.InstanceID)-(n-maxKeyLength), len(e.AppID)+len(e.InstanceID))
	}
	if err := validHost("host", e.Host); err != nil {
		return err
	}
	if e.ExternalHost != "" {
		if err := validHost("externalHost", e.ExternalHost); err != nil {
			return err
		}
	}
	if e.Port < 1 || e.Port > 65535 {
		return invalid("port", "must be between 1 and 65535, got %d", e.Port)
	}
	if e.Status != "" && !e.Status.Valid() {
		return invalid("status", "must be healthy, degraded, unavailable or shuttingDown, got %q", clip(string(e.Status)))
	}
	if math.IsNaN(e.LoadPercent) || e.LoadPercent < 0 || e.LoadPercent > 100 {
		return invalid("loadPercent", "must be between 0 and 100, got %v", e.LoadPercent)
	}
	if e.MaxConnections < 0 {
		return invalid("maxConnections", "must not be negative, got %d", e.MaxConnections)
	}
	if e.CurrentConnections < 0 {
		return invalid("currentConnections", "must not be negative, got %d", e.CurrentConnections)
	}
	if e.Zone != "" {
		if err := validName("zone", e.Zone); err != nil {
			return err
		}
	}
	for i, s := range e.Services {
		if err := validName("services["+strconv.Itoa(i)+"]", s); err != nil {
			return err
		}
	}
	return nil
}

// ValidateName reports, as an *InvalidError naming member, whether name can be an app-id, an instance id or a
// service's name.
func ValidateName(member, name string) error { return validName(member, name) }

func validName(member, name string) error {
	if name == "" {
		return invalid(member, "is missing")
	}
	if len(name) > MaxNameLength {
		return invalid(member, "must have at most %d bytes, has %d", MaxNameLength, len(name))
	}
	for i := range len(name) {
		c := name[i]
		alphanumeric := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alphanumeric && (i == 0 || c != '.' && c != '-') {
			return invalid(member, "must be lower-case letters, digits, dots and dashes, beginning with a letter or "+
				"digit, got %q", clip(name))
		}
	}
	return nil
}

func validHost(member, host string) error {
	switch {
	case host == "":
		return invalid(member, "is missing")
	case len(host) > 253:
		return invalid(member, "must have at most 253 bytes, has %d", len(host))
	case strings.Contains(host, "://"):
		return invalid(member, "must be a name or address without a scheme, got %q", clip(host))
	case net.ParseIP(host) != nil:
		return nil
	}
	for i := range len(host) {
		c := host[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '-' && c != '_') {
			return invalid(member, "must be a name or address without scheme, port or path, got %q", clip(host))
		}
	}
	return nil
}

// clip keeps an error's quotation of what a caller sent short.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

// at returns the endpoint's status as it is at an instant: its own word, unless it has been quiet for too long.
// Gone is true when it should be forgotten.
func (e *Endpoint) at(now time.Time) (status Status, gone bool) {
	quiet := now.Sub(e.LastSeen)
	switch {
	case quiet >= GoneAfter:
		return StatusUnavailable, true
	case quiet >= DegradedAfter && e.Status == StatusHealthy:
		return StatusDegraded, false
	default:
		return e.Status, false
	}
}

// Usable returns the endpoints that a request may be sent to: the healthy ones; if there is none, the degraded ones.
// It never returns one that is unavailable or shutting down. The order is kept; the input is not changed.
func Usable(endpoints []Endpoint) []Endpoint {
	for _, status := range []Status{StatusHealthy, StatusDegraded} {
		usable := slices.Collect(func(yield func(Endpoint) bool) {
			for _, e := range endpoints {
				if e.Status == status && !yield(e) {
					return
				}
			}
		})
		if len(usable) > 0 {
			return usable
		}
	}
	return nil
}
