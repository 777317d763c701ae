package mesh

import (
	"maps"
	"slices"
)

// DefaultAppID is the node that runs every service that is not mapped elsewhere.
const DefaultAppID = "bannou"

// maxAnnouncedVersion is the highest version that is taken over from an announcement: what a number in JSON is exact up to in
// every language. With a higher one nobody could set mappings any more.
const maxAnnouncedVersion = 1 << 53

// Mappings say which app-id a service runs on. They are one value, replaced as a whole, and only by a higher version.
type Mappings struct {
	Services         map[string]string `json:"mappings"`     // service to app-id; what is not in it is on DefaultAppID
	DefaultAppID     string            `json:"defaultAppId"` // empty: "bannou"
	Version          int64             `json:"version"`      // 0: never set
	SourceInstanceID string            `json:"sourceInstanceId,omitzero"`
}

// AppID returns the app-id that a service is on.
func (m Mappings) AppID(service string) string {
	if app := m.Services[service]; app != "" {
		return app
	}
	if m.DefaultAppID != "" {
		return m.DefaultAppID
	}
	return DefaultAppID
}

// Validate reports the first member that breaks a rule, as an *InvalidError.
func (m Mappings) Validate() error {
	for _, service := range slices.Sorted(maps.Keys(m.Services)) {
		if err := validName("mappings key", service); err != nil {
			return err
		}
		if err := validName("mappings."+service, m.Services[service]); err != nil {
			return err
		}
	}
	if m.DefaultAppID != "" {
		if err := validName("defaultAppId", m.DefaultAppID); err != nil {
			return err
		}
	}
	if m.Version < 0 {
		return invalid("version", "must not be negative, got %d", m.Version)
	}
	return nil
}
