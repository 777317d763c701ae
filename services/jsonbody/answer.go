package jsonbody

import (
	"context"
	"net/http"
	"time"

	"github.com/bannou-mesh/bannou/services/problem"
)

// Operations is what the operations of one service have in common.
type Operations struct {
	// Limits bounds the bodies of requests.
	Limits Limits

	// Timeout bounds the work of one request, once its body is read. It has no default: with 0 nothing is done.
	Timeout time.Duration

	// Context is that of a request's work. Default: the request's.
	Context func(r *http.Request) context.Context

	// Problem is an error of the work as callers see it. Default: the error, of which problem.Write tells only what is a problem.
	Problem func(err error) error
}

// Answer reads a request of type Q (see Decode), has it done within the time of one operation, and answers with what comes of it.
func Answer[Q, A any](o Operations, w http.ResponseWriter, r *http.Request, do func(ctx context.Context, request *Q) (*A, error)) {
	request, err := Decode[Q](o.Limits, w, r)
	if err != nil {
		problem.Write(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(o.context(r), o.Timeout)
	defer cancel()
	response, err := do(ctx, request)
	if err != nil {
		if o.Problem != nil {
			err = o.Problem(err)
		}
		problem.Write(w, err)
		return
	}
	Write(w, response)
}

func (o Operations) context(r *http.Request) context.Context {
	if o.Context == nil {
		return r.Context()
	}
	return o.Context(r)
}
