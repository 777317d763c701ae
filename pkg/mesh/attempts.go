package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// sendToOne sends to the instance that the balancer picks, and again, to another one if there is one, as the target's
// policy says. The last outcome is the call's.
func (c *Client) sendToOne(req *http.Request, r route) (*http.Response, error) {
	body := keepBody(req)
	defer body.release()
	p, ctx := r.pool, req.Context()
	now := c.balancing.clock()
	p.budget.called(now)
	retrying := newRetrying(req, p)
	if err := body.attach(req, true); err != nil {
		return nil, err
	}
	var tried []*Instance
	secondRound := false // all instances were tried
	for {
		in := p.pick(r.choice, now, tried...)
		if in == nil {
			closeBody(req)
			return nil, noEndpoint(r.appID)
		}
		resp, err := c.attempt(req, body, in, now)
		if !retrying.worthwhile(resp, err) || ctx.Err() != nil || body.touched() {
			return resp, err
		}
		// Meanwhile instances may have gone, this one may be ejected.
		now = c.balancing.clock()
		tried = append(tried, in)
		r.choose(c.directory.current.Load().apps[r.appID], now)
		elsewhere := r.choice.offersOther(tried)
		if elsewhere && !secondRound && neverHandled(resp, err) {
			c.log.Warn("an instance cannot be reached; another is tried", "appId", r.appID, "instanceId", in.id,
				"address", in.address, "error", cmp.Or(err, ErrMisdirected))
			discard(resp)
			if err := body.attach(req, false); err != nil {
				return nil, err
			}
			continue // at once, and without counting it: no handler saw anything
		}
		if len(r.choice.instances) == 0 {
			return resp, err
		}
		var atLeast time.Duration
		if !elsewhere {
			atLeast, tried, secondRound = retryAfter(resp, time.Now()), nil, true
		}
		wait, ok := retrying.next(ctx, p, now, atLeast)
		if !ok {
			return resp, err
		}
		discard(resp)
		if !pause(ctx, wait) {
			return nil, context.Cause(ctx)
		}
		now = c.balancing.clock()
		r.choose(c.directory.current.Load().apps[r.appID], now)
		req = again(ctx, req)
		if err := body.attach(req, false); err != nil {
			return nil, err
		}
	}
}

// attempt sends to one instance, and lets it know how that went.
func (c *Client) attempt(req *http.Request, body *keptBody, in *Instance, now time.Duration) (*http.Response, error) {
	a := in.begin(now)
	if limit := in.pool.policy.AttemptTimeout; limit > 0 {
		return c.boundAttempt(req, body, a, limit)
	}
	return c.roundTrip(req, body, a)
}

// errAttemptTimeout is why an attempt ended whose response did not begin in time.
var errAttemptTimeout = fmt.Errorf("the instance did not answer within the time of one attempt: %w", context.DeadlineExceeded)

// boundAttempt is an attempt that ends when its response does not begin in time.
func (c *Client) boundAttempt(req *http.Request, body *keptBody, a attempt, limit time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(limit, func() { cancel(errAttemptTimeout) })
	resp, err := c.roundTrip(req.WithContext(ctx), body, a)
	if inTime := timer.Stop(); !inTime && err == nil {
		_ = resp.Body.Close()
		err = errAttemptTimeout
	}
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errAttemptTimeout) && !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		cancel(nil)
		return nil, err
	}
	endWithBody(resp, func() { cancel(nil) })
	return resp, nil
}

// endWithBody has end called when the response's body was read or given up. A body that is a connection is left as it
// is; what end would free goes with the call's context.
func endWithBody(resp *http.Response, end context.CancelFunc) {
	if resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body = &boundBody{ReadCloser: resp.Body, cancel: end}
	}
}

func (c *Client) roundTrip(req *http.Request, body *keptBody, a attempt) (*http.Response, error) {
	req.URL.Host = a.instance.address
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		a.end(c.balancing.clock(), blame(req, body))
		return nil, err
	}
	c.watch(resp, req, a)
	return resp, nil
}

// discardBytes and discardTime bound what is read of a response that nobody wants, to keep its connection.
const (
	discardBytes = 4 << 10
	discardTime  = 20 * time.Millisecond
)

func discard(resp *http.Response) {
	if resp == nil {
		return
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.ContentLength < 0 || resp.ContentLength > discardBytes {
		return
	}
	stalled := time.AfterFunc(discardTime, func() { _ = resp.Body.Close() })
	defer stalled.Stop()
	_, _ = io.Copy(io.Discard, resp.Body)
}

// blame tells what an error says of the instance that was called.
func blame(req *http.Request, body *keptBody) callOutcome {
	ctx := req.Context()
	switch {
	case body.broke():
		return unknownOutcome
	case ctx.Err() == nil, errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return failed
	default:
		return unknownOutcome
	}
}

// neverConnected reports whether an error means that no connection was established, so that nothing was sent.
func neverConnected(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
