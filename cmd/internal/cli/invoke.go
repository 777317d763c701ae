package cli

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strings"
)

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
