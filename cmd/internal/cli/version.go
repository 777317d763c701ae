package cli

import (
	"fmt"
	"runtime"
)

type versionString string

type versionCommand struct{ outputFlag }

func (c *versionCommand) Run(std *stdio, version versionString) error {
	v := struct {
		Version  string `json:"version"`
		Go       string `json:"go"`
		Platform string `json:"platform"`
	}{string(version), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	return c.print(std, v, func(t *table) {
		t.line(fmt.Sprintf("bannou %s (%s, %s)", v.Version, v.Go, v.Platform))
	})
}
