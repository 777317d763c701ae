package mesh

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// A Config is one version of the mesh's configuration: the mappings, and settings that the mesh keeps for others.
type Config struct {
	Version          int64             `json:"version"`           // counts from 1; 0: never set
	Mappings         map[string]string `json:"mappings"`          // service to app-id
	DefaultAppID     string            `json:"defaultAppId"`      // empty when set: "bannou"
	Settings         jsontext.Value    `json:"settings,omitzero"` // a JSON object, kept to the digit; absent if never set
	SourceInstanceID string            `json:"sourceInstanceId,omitzero"`
	UpdatedAt        time.Time         `json:"updatedAt,omitzero"`
	RolledBackTo     int64             `json:"rolledBackTo,omitzero"` // the version whose content this is, if a rollback made it
}
