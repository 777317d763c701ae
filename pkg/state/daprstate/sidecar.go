package daprstate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A sidecar makes requests.
type sidecar struct {
	base, token string
	client      *http.Client
	idle        func() // closes idle connections; nil: the transport is the caller's
}

// A refusal is an answer that is none of those asked for.
type refusal struct {
	status        int
	code, message string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the sidecar answers %d %s: %s", r.status, r.code, r.message)
}

// maxRefusal bounds what is read of a refusal.
const maxRefusal = 64 << 10

// get reads JSON, or nothing where into is nil.
func (s *sidecar) get(ctx context.Context, path string, into any) error {
	body, _, err := s.do(ctx, http.MethodGet, path, nil, nil)
	if err != nil || into == nil {
		return s.reading(ctx, err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%w: what the sidecar answers is not what Dapr does: %w", state.ErrUnavailable, err)
	}
	return nil
}

// do makes one request and returns the body of an answer 2xx. Another one is a *refusal. sent says that the sidecar may have got the request.
func (s *sidecar) do(ctx context.Context, method, path string, header http.Header, body []byte) (answer []byte, sent bool, err error) {
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, false, err
	}
	if header != nil {
		req.Header = header
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if s.token != "" {
		req.Header.Set("Dapr-Api-Token", s.token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		var network *net.OpError
		return nil, !errors.As(err, &network) || network.Op != "dial", err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		answer, err = io.ReadAll(resp.Body)
		return answer, true, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil {
		return nil, true, err
	}
	refused := refusal{status: resp.StatusCode}
	var said struct {
		ErrorCode string `json:"errorCode"`
		Message   string `json:"message"`
	}
	if json.Unmarshal(text, &said) == nil && said.ErrorCode != "" {
		refused.code, refused.message = said.ErrorCode, said.Message
	} else {
		refused.message = string(text[:min(len(text), 200)])
	}
	return nil, true, &refused
}

// reading says what an error means for the caller of a request that changes nothing.
func (s *sidecar) reading(ctx context.Context, err error) error {
	switch cause := ended(ctx); {
	case err == nil:
		return nil
	case errors.Is(cause, context.Canceled):
		return cause
	case cause != nil:
		return fmt.Errorf("%w: %w: %w", state.ErrUnavailable, cause, err)
	default:
		return fmt.Errorf("%w: %w", state.ErrUnavailable, err)
	}
}

// writing says the same of one that was to change something. A conflict is errConflict, and nothing was changed.
func (s *sidecar) writing(ctx context.Context, sent bool, err error) error {
	if err == nil {
		return nil
	}
	var refused *refusal
	if errors.As(err, &refused) {
		if strings.HasPrefix(refused.code, "ERR_STATE_STORE_NOT_") { // found, or configured: a 400, and the fault of no value
			return fmt.Errorf("%w: %w", state.ErrUnavailable, err)
		}
		switch refused.status {
		case http.StatusConflict:
			return errConflict
		case http.StatusRequestEntityTooLarge:
			return fmt.Errorf("%w: the sidecar takes no request of that size: start daprd with --dapr-http-max-request-size: %w", state.ErrTooLarge, err)
		case http.StatusBadRequest:
			return fmt.Errorf("%w: %w", state.ErrInvalid, err)
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
			return fmt.Errorf("%w: %w", state.ErrUnavailable, err)
		}
		switch {
		case strings.Contains(refused.message, "possible etag mismatch"): // how the sidecar tells of it in a transaction
			return errConflict
		case strings.Contains(refused.message, "Error 1213"):
			return errDeadlock
		case strings.Contains(refused.message, "Error 1406"):
			return fmt.Errorf("%w: the component's table has no room for it: %w", state.ErrInvalid, err)
		case strings.Contains(refused.message, "CONSTRAINT") || strings.Contains(refused.message, "Error 3140"):
			return fmt.Errorf("%w: the component's database does not take the value for JSON: %w", state.ErrInvalid, err)
		}
		return fmt.Errorf("%w: %w", state.ErrOutcomeUnknown, err) // its component failed, which it may have done after the change
	}
	if !sent {
		return s.reading(ctx, err)
	}
	if cause := ended(ctx); cause != nil {
		return fmt.Errorf("%w: %w: %w", state.ErrOutcomeUnknown, cause, err)
	}
	return fmt.Errorf("%w: %w", state.ErrOutcomeUnknown, err)
}

// errConflict is a condition that does not hold any more.
var errConflict = errors.New("conflict")

// errDeadlock is a transaction that the component's database has undone for another's sake, which is normal.
var errDeadlock = fmt.Errorf("%w: the component's database undid the change for another's sake", state.ErrUnavailable)

// ended returns why the context has ended, or nil. A connection's deadline, which is the context's, may pass a moment before the context notices.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}
