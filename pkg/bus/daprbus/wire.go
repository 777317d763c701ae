package daprbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

const (
	headerToken = "Dapr-Api-Token"
	maxAnswer   = 1 << 20
)

func bodyOf(body []byte) io.Reader {
	if body == nil {
		return nil
	}
	return bytes.NewReader(body)
}

// unanswered is what it means that no answer came.
func unanswered(err error) error {
	var network *net.OpError
	if errors.As(err, &network) && network.Op == "dial" {
		return bus.ErrUnavailable
	}
	return bus.ErrNotConfirmed
}

// orCause is the reason for which the context ended, with what came of it.
func orCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// refused is what an answer of the sidecar means that is none of success.
func refused(status int, answer []byte) error {
	var said struct {
		ErrorCode string `json:"errorCode"`
		Message   string `json:"message"`
	}
	text := string(answer[:min(len(answer), 200)])
	if json.Unmarshal(answer, &said) == nil && said.ErrorCode != "" {
		text = said.ErrorCode + ": " + said.Message
	}
	kind := bus.ErrUnavailable // no such component, not allowed, no token: another start of the sidecar may mend it
	switch {
	case status == http.StatusBadRequest || status == http.StatusRequestEntityTooLarge:
		kind = bus.ErrInvalid
	case status >= http.StatusInternalServerError:
		kind = bus.ErrNotConfirmed // the component failed, which it may have done after the broker had the event
	}
	return fmt.Errorf("%w: the sidecar answers %d %s", kind, status, text)
}
