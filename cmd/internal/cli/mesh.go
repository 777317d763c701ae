package cli

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/services/mesh/meshapi"
)

type endpointsCommand struct {
	nodeFlag
	outputFlag
	AppID string `arg:"" optional:"" name:"app-id" help:"Only the endpoints of this app-id."`
	All   bool   `help:"Those in bad health too."`
}

func (c *endpointsCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.mesh()
	if err != nil {
		return err
	}
	var answer meshapi.EndpointsResponse
	if c.AppID != "" {
		answer, err = decode[meshapi.EndpointsResponse](read(
			client.GetEndpoints(ctx, meshapi.GetEndpointsRequest{AppID: c.AppID, IncludeUnhealthy: c.All})))
	} else {
		answer, err = decode[meshapi.EndpointsResponse](read(
			client.ListEndpoints(ctx, meshapi.ListEndpointsRequest{IncludeUnhealthy: c.All})))
	}
	if err != nil {
		return err
	}
	now := time.Now()
	return c.print(std, answer, func(t *table) {
		t.row("APP-ID", "INSTANCE", "ADDRESS", "STATUS", "LOAD", "SEEN", "SERVICES")
		for _, e := range answer.Endpoints {
			t.row(e.AppID, e.InstanceID, fmt.Sprintf("%s:%d", e.Host, e.Port), e.Status,
				fmt.Sprintf("%.0f%%", e.LoadPercent), ago(e.LastSeen, now), strings.Join(e.Services, ","))
		}
	})
}

type invokeCommand struct {
	nodeFlag
	Target string            `arg:"" help:"App-id to call."`
	Method string            `arg:"" help:"Path of the method, such as scores/top."`
	Body   string            `arg:"" default:"{}" help:"Body as JSON; - reads it from standard input."`
	Verb   string            `short:"X" default:"POST" help:"HTTP method."`
	Header map[string]string `short:"H" help:"Headers as name=value."`
}

// Run prints the answer's body as it came. A status other than 2xx is an error.
func (c *invokeCommand) Run(ctx context.Context, std *stdio) error {
	body, err := jsonArgument(std, "the body", c.Body)
	if err != nil {
		return err
	}
	client, base, err := c.client()
	if err != nil {
		return err
	}
	address := base + "/v1.0/invoke/" + url.PathEscape(c.Target) + "/method/" + strings.TrimPrefix(c.Method, "/")
	verb := strings.ToUpper(c.Verb)
	if verb == http.MethodGet || verb == http.MethodHead {
		body = nil
	}
	request, err := http.NewRequestWithContext(ctx, verb, address, bytes.NewReader(body))
	if err != nil {
		return usageError{err}
	}
	request.Header.Set("Content-Type", "application/json")
	for name, value := range c.Header {
		request.Header.Set(name, value)
	}
	answer, err := read(client.Do(request))
	if err != nil {
		return err
	}
	if len(answer) > 0 && !bytes.HasSuffix(answer, []byte("\n")) {
		answer = append(answer, '\n')
	}
	_, err = std.out.Write(answer)
	return err
}
