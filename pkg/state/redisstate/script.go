package redisstate

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/state"
)

//go:embed apply.lua
var applySource string

// A write is a command that go-redis must not repeat after it may have reached the server: the second time, an
// acknowledged change of somebody else could be overwritten.
type write struct{ *redis.Cmd }

// NoRetry is what go-redis asks before it repeats a command.
func (write) NoRetry() bool { return true }

// keep makes the command independent of the caller's bytes, so that the caller may leave before they are written.
func (w write) keep() {
	for i, arg := range w.Args() {
		if value, ok := arg.([]byte); ok {
			w.Args()[i] = bytes.Clone(value)
		}
	}
}

// A stamp is the script's first argument: the time at which it is written to a connection. A caller who leaves before that
// withdraws it; then the script, should it be sent yet, does nothing. So a caller knows whether its change can be made.
type stamp struct{ state atomic.Int32 }

const (
	stampOpen int32 = iota
	stampSent
	stampWithdrawn
)

// MarshalBinary is what go-redis calls when it writes the argument.
func (s *stamp) MarshalBinary() ([]byte, error) {
	if s.state.CompareAndSwap(stampOpen, stampSent) || s.sent() {
		return time.Now().UTC().AppendFormat(nil, time.RFC3339Nano), nil
	}
	return nil, nil
}

func (s *stamp) sent() bool { return s.state.Load() == stampSent }

// withdraw reports whether nothing was sent, and then nothing will be.
func (s *stamp) withdraw() bool { return s.state.CompareAndSwap(stampOpen, stampWithdrawn) }

// A call is one run of the script.
type call struct {
	keys   []string
	nonces []string
	args   []any // without the stamp
	size   int   // bytes of the values
	stamp  *stamp
	cmd    write
}

func newCall(prefix string, changes ...state.Change) *call {
	c := &call{keys: make([]string, len(changes)), nonces: make([]string, len(changes)), args: make([]any, 0, 5*len(changes))}
	for i := range changes {
		change := &changes[i]
		c.keys[i] = prefix + change.Key
		operation := "delete"
		if !change.Delete {
			operation, c.nonces[i] = "save", rand.Text()[:16]
		}
		c.size += len(change.Value)
		c.args = append(c.args, operation, conditionArg(change), expiryArg(change.Expiry), c.nonces[i], change.Value)
	}
	return c
}

func conditionArg(c *state.Change) string {
	switch c.When {
	case state.IfAbsent:
		return "absent"
	case state.IfETag:
		return "=" + c.ETag
	default:
		return "always"
	}
}

func expiryArg(e state.Expiry) string {
	if ttl, ok := e.TTL(); ok {
		return strconv.FormatInt(ttl.Milliseconds(), 10)
	}
	if e == state.Never {
		return "never"
	}
	return "keep"
}

// prepare makes the command that runs the script, named by its hash or with its whole text.
func (c *call) prepare(ctx context.Context, name, script string) {
	c.stamp = new(stamp)
	args := make([]any, 0, 4+len(c.keys)+len(c.args))
	args = append(args, name, script, len(c.keys))
	for _, key := range c.keys {
		args = append(args, key)
	}
	args = append(args, c.stamp)
	c.cmd = write{redis.NewCmd(ctx, append(args, c.args...)...)}
}

// scriptLost reports a server that does not have the script. It has done nothing.
func (c *call) scriptLost() bool { return redis.HasErrorPrefix(c.cmd.Err(), "NOSCRIPT") }

// run runs one call, in the company of other callers' where there are any.
func (e *engine) run(ctx context.Context, c *call) error {
	err := e.attempt(ctx, c, "evalsha", e.script)
	if err != nil && c.scriptLost() {
		err = e.attempt(ctx, c, "eval", applySource)
	}
	return err
}

func (e *engine) attempt(ctx context.Context, c *call, name, script string) error {
	c.prepare(ctx, name, script)
	if !e.lines.writes(ctx, c.keys[0]).do(ctx, c.cmd, c.size) { // the command is the sender's now
		sent := !c.stamp.withdraw()
		c.cmd = write{redis.NewCmd(ctx)}
		return writeError(ctx, context.Cause(ctx), sent)
	}
	return writeError(ctx, c.cmd.Err(), c.stamp.sent())
}

// runAll runs calls in one round trip, or one to each node of a cluster. Those that a server refused because it does not
// have the script are sent again.
func (e *engine) runAll(ctx context.Context, calls []*call) {
	again := e.pipeline(ctx, calls, "evalsha", e.script)
	if again != nil {
		e.pipeline(ctx, again, "eval", applySource)
	}
}

func (e *engine) pipeline(ctx context.Context, calls []*call, name, script string) (lost []*call) {
	pipe := e.lines.client.Pipeline()
	for _, c := range calls {
		c.prepare(ctx, name, script)
		if err := pipe.Process(ctx, c.cmd); err != nil {
			c.cmd.SetErr(err)
		}
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for _, c := range calls {
		if c.scriptLost() {
			lost = append(lost, c)
		}
	}
	return lost
}

// outcomes reads the script's answer.
func (c *call) outcomes() ([]state.Outcome, error) {
	answers, ok := c.cmd.Val().([]any)
	if !ok || len(answers) != len(c.keys) {
		return nil, fmt.Errorf("%w: the script answered %v", state.ErrOutcomeUnknown, c.cmd.Val())
	}
	outcomes := make([]state.Outcome, len(answers))
	for i, a := range answers {
		answer, ok := a.([]any)
		if !ok || len(answer) == 0 {
			return nil, fmt.Errorf("%w: the script answered %v", state.ErrOutcomeUnknown, a)
		}
		outcomes[i] = outcomeOf(answer, c.nonces[i])
	}
	return outcomes, nil
}

func outcomeOf(answer []any, nonce string) state.Outcome {
	switch answer[0] {
	case "done":
		o := state.Outcome{Done: true}
		if len(answer) == 2 {
			version, _ := answer[1].(string)
			o.Version, _ = strconv.ParseInt(version, 10, 64)
			o.ETag = formatETag(version, nonce)
		}
		return o
	case "conflict":
		return state.Outcome{Conflict: true}
	case "missing":
		return state.Outcome{Conflict: true, Absent: true}
	case "corrupt":
		return state.Outcome{Err: fmt.Errorf("%w: the Redis key is not a hash with a version", state.ErrCorrupt)}
	default:
		return state.Outcome{}
	}
}

func formatETag(version, nonce string) string {
	if nonce == "" {
		return version
	}
	return version + "-" + nonce
}
