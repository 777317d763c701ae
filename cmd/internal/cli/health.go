package cli

import (
	"context"
	"net/http"
)

type healthCommand struct{ nodeFlag }

// Run ends with 0 when the node is ready: what a container's health check calls.
func (c *healthCommand) Run(ctx context.Context, std *stdio) error {
	client, base, err := c.client()
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", nil)
	if err != nil {
		return usageError{err}
	}
	body, err := read(client.Do(request))
	if err != nil {
		return err
	}
	_, err = std.out.Write(append(body, '\n'))
	return err
}
