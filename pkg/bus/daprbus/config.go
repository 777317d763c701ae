package daprbus

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Config is where the sidecar is, and which of its components is the broker. Endpoint is required.
type Config struct {
	// Endpoint is the sidecar's HTTP API, such as http://127.0.0.1:3500.
	Endpoint string
	// Token is shown to the sidecar in the header dapr-api-token. Default: none.
	Token string
	// AppToken is what the sidecar shows in that header with what it brings; what comes without is refused. Default: nothing is asked for.
	AppToken string
	// PubSub is the component. Default "bannou-pubsub".
	PubSub string
	// DeadLetterExchange is the topic that dead letters are published to: what a Bus calls its dead-letter exchange. Default "bannou-dlx".
	DeadLetterExchange string
	// Transport sends the requests. Default: one of the driver's own, HTTP/1.1 with kept connections.
	Transport http.RoundTripper
	// Logger hears of what came and could not be delivered. Default: nobody.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	c.PubSub = cmp.Or(c.PubSub, "bannou-pubsub")
	c.DeadLetterExchange = cmp.Or(c.DeadLetterExchange, "bannou-dlx")
	c.Endpoint = strings.TrimSuffix(c.Endpoint, "/")
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" || u.User != nil {
		return c, fmt.Errorf("daprbus: %w: the sidecar's endpoint must be http://host:port", bus.ErrInvalid)
	}
	return c, nil
}
