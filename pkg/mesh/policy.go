package mesh

import (
	"cmp"
	"fmt"
	"time"
)

// A Policy says how calls of one target are kept from failing, and its failures from spreading. The zero value is the
// defaults. It applies alike to [Invoke], [Client.Do] and what [NewProxy] passes on. A target in this process is bounded by
// Timeout; the rest is for what lies beyond a socket.
type Policy struct {
	// Timeout bounds the whole call, further attempts and the response's body included, also where the context allows
	// more. Of a call through NewProxy it bounds the wait for the head. Default: the client's Timeout, for calls without a
	// deadline of their own.
	Timeout time.Duration
	// AttemptTimeout bounds the wait of one attempt for the response's head, from when the request's body last moved. While
	// more of the body is due from the caller it does not run out. Default: none but the call's own.
	AttemptTimeout time.Duration
	// Retry says what is sent again.
	Retry Retry
	// Hedge says what is sent to two instances.
	Hedge Hedge
	// Breaker says when no calls are made, because all instances fail.
	Breaker Breaker
	// Bulkhead bounds the calls under way.
	Bulkhead Bulkhead
}

func (p Policy) withDefaults() (Policy, error) {
	if p.Timeout < 0 || p.AttemptTimeout < 0 {
		return p, fmt.Errorf("mesh: timeout %v, for an attempt %v: choose positive durations", p.Timeout, p.AttemptTimeout)
	}
	var err error
	if p.Retry, err = p.Retry.withDefaults(); err != nil {
		return p, err
	}
	if p.Breaker, err = p.Breaker.withDefaults(); err != nil {
		return p, err
	}
	return p, cmp.Or(p.Hedge.validate(), p.Bulkhead.validate())
}

// policies are a client's, by app-id.
type policies struct {
	byDefault Policy
	byApp     map[string]Policy
	timeouts  bool // one of them has a Timeout
}

func newPolicies(byDefault Policy, byApp map[string]Policy) (*policies, error) {
	all := &policies{byApp: make(map[string]Policy, len(byApp))}
	var err error
	if all.byDefault, err = byDefault.withDefaults(); err != nil {
		return nil, err
	}
	all.timeouts = all.byDefault.Timeout > 0
	for app, p := range byApp {
		if all.byApp[app], err = p.withDefaults(); err != nil {
			return nil, fmt.Errorf("policy of %q: %w", app, err)
		}
		all.timeouts = all.timeouts || p.Timeout > 0
	}
	return all, nil
}

func (all *policies) of(appID string) *Policy {
	if p, ok := all.byApp[appID]; ok {
		return &p
	}
	return &all.byDefault
}
