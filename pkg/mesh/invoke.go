package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"
)

// maxErrorBody is how much of an error's body is kept.
const maxErrorBody = 64 << 10

// A ResponseError is an answer that is not a success. The members of a problem document (RFC 9457) are taken out of it;
// they are empty if the answer was none.
type ResponseError struct {
	Method, Target, Path string // what was called
	StatusCode           int
	Code                 string // the stable code, for programs
	Title, Detail        string // for people
	ContentType          string
	Body                 []byte // as it came, at most 64 KiB
}

// Error says what was called and what it answered.
func (e *ResponseError) Error() string {
	text := fmt.Sprintf("%s %s at %s answered %d %s", e.Method, e.Path, e.Target, e.StatusCode, http.StatusText(e.StatusCode))
	for _, part := range []string{e.Code, e.Detail} {
		if part != "" {
			text += ": " + part
		}
	}
	return text
}

// Invoke posts req as JSON to a method of a target and returns what it answers, decoded. The target is a service or an
// app-id; the method is a path without its leading slash, "messaging/publish", and may have a query. An empty answer
// gives a zero Resp; use struct{} for an answer that does not matter.
//
// An answer other than 2xx is a *ResponseError; for other errors see [Client.Do]. A body that is longer than the
// client's MaxResponseBytes is ErrTooLarge.
func Invoke[Req, Resp any](ctx context.Context, c *Client, target, method string, req Req) (Resp, error) {
	var answer Resp
	body, err := json.Marshal(req)
	if err != nil {
		return answer, fmt.Errorf("encode the request to %s at %s: %w", method, target, err)
	}
	received, err := c.post(ctx, target, method, body)
	if err != nil || len(bytes.TrimSpace(received)) == 0 {
		return answer, err
	}
	if _, ignored := any(answer).(struct{}); ignored {
		return answer, nil
	}
	if err := json.Unmarshal(received, &answer); err != nil {
		return answer, fmt.Errorf("decode the answer of %s at %s: %w", method, target, err)
	}
	return answer, nil
}

func (c *Client) post(ctx context.Context, target, method string, body []byte) ([]byte, error) {
	u, err := url.Parse("/" + strings.TrimPrefix(method, "/"))
	if err != nil || u.Host != "" {
		return nil, invalid("method", "must be a path, got %q", clip(method))
	}
	req := &http.Request{Method: http.MethodPost, URL: u, ContentLength: int64(len(body)),
		Header: http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}},
		Body:   io.NopCloser(bytes.NewReader(body)),
		// A kept connection may be found closed by the other side before anything was sent.
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
	}
	resp, err := c.call(ctx, target, req, req.Header)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, responseError(resp, target, u.Path)
	}
	received, err := readUpTo(resp, c.maxResponse)
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s at %s: %w", method, target, err)
	}
	return received, nil
}

// readUpTo reads a body that may have limit bytes.
func readUpTo(resp *http.Response, limit int64) ([]byte, error) {
	if resp.ContentLength > limit {
		return nil, fmt.Errorf("%w: %d bytes, %d are accepted", ErrTooLarge, resp.ContentLength, limit)
	}
	if resp.ContentLength >= 0 {
		received := make([]byte, resp.ContentLength)
		_, err := io.ReadFull(resp.Body, received)
		return received, err
	}
	received, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(received)) > limit {
		err = fmt.Errorf("%w: more than the %d bytes that are accepted", ErrTooLarge, limit)
	}
	return received, err
}

func responseError(resp *http.Response, target, path string) error {
	e := &ResponseError{Method: http.MethodPost, Target: target, Path: path, StatusCode: resp.StatusCode,
		ContentType: resp.Header.Get("Content-Type")}
	var err error
	if e.Body, err = io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)); err != nil {
		return errors.Join(e, fmt.Errorf("read its body: %w", err))
	}
	var problem struct {
		Code   string `json:"code"`
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}
	media, _, _ := mime.ParseMediaType(e.ContentType)
	if (media == "application/problem+json" || media == "application/json") && json.Unmarshal(e.Body, &problem) == nil {
		e.Code, e.Title, e.Detail = problem.Code, problem.Title, problem.Detail
	}
	return e
}
