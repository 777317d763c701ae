package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// callAPI calls RabbitMQ's management API at a path, as the user of the broker's address. The answer's body does not matter.
func callAPI(ctx context.Context, method, api, address, path string) error {
	broker, err := url.Parse(address)
	if err != nil {
		return errors.New("the address of the broker is no URL")
	}
	request, err := http.NewRequestWithContext(ctx, method, api+"/api/"+path, http.NoBody)
	if err != nil {
		return err
	}
	password, _ := broker.User.Password()
	request.SetBasicAuth(broker.User.Username(), password)
	request.Header.Set("Content-Type", "application/json")
	// No connection is kept, so that a test finds no goroutine that it did not start.
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode >= http.StatusBadRequest {
		detail, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10)) // the status says enough without it
		return fmt.Errorf("%s %s: %s %s", method, path, response.Status, strings.TrimSpace(string(detail)))
	}
	return nil
}
