package redisstate

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/state"
)

//go:embed apply.lua
var applySource string

// A write is a command that go-redis must not repeat after it may have reached the server: the second time, an
// acknowledged change of somebody else could be overwritten.
type write struct {
	*redis.Cmd
	single bool // an EVALSHA of one change, as join takes them
	shared bool // the caller may write to a value once its call has returned
}

// NoRetry is what go-redis asks before it repeats a command.
func (write) NoRetry() bool { return true }

// keep makes the command independent of the caller's bytes, so that the caller may leave before they are written.
func (w write) keep() {
	if !w.shared {
		return
	}
	for i, arg := range w.Args() {
		if value, ok := arg.([]byte); ok {
			w.Args()[i] = bytes.Clone(value)
		}
	}
}

// size is how many bytes the value of a single change has.
func (w write) size() int {
	args := w.Args()
	value, _ := args[len(args)-1].([]byte)
	return len(value)
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
		return time.Now().UTC().AppendFormat(make([]byte, 0, len(time.RFC3339Nano)), time.RFC3339Nano), nil
	}
	return nil, nil
}

func (s *stamp) sent() bool { return s.state.Load() == stampSent }

// withdraw reports whether nothing was sent, and then nothing will be.
func (s *stamp) withdraw() bool { return s.state.CompareAndSwap(stampOpen, stampWithdrawn) }

// A call is what one caller has the script do. Its arguments are how it is run and how many keys there are; the keys; the stamp; five for
// each change.
type call struct {
	args   []any
	keys   int
	size   int // bytes of the values
	shared bool
	stamp  *stamp
	cmd    write
}

func newCall(prefix string, changes ...state.Change) *call {
	c := &call{keys: len(changes), args: make([]any, 3, 4+6*len(changes))}
	c.args[2] = c.keys
	for i := range changes {
		c.args = append(c.args, prefix+changes[i].Key)
	}
	c.args = append(c.args, nil)
	for i := range changes {
		change := &changes[i]
		if change.Delete {
			c.args = append(c.args, "delete", conditionArg(change), "", "", "")
			continue
		}
		c.size += len(change.Value)
		c.shared = c.shared || change.Shared
		c.args = append(c.args, "save", conditionArg(change), expiryArg(change.Expiry), rand.Text()[:16], change.Value)
	}
	return c
}

func (c *call) key() string             { return c.args[3].(string) }                   //nolint:forcetypeassert // see newCall
func (c *call) nonce(change int) string { return c.args[4+c.keys+5*change+3].(string) } //nolint:forcetypeassert // see newCall

func conditionArg(c *state.Change) any {
	switch c.When {
	case state.IfAbsent:
		return "absent"
	case state.IfETag:
		return "=" + c.ETag
	default:
		return "always"
	}
}

func expiryArg(e state.Expiry) any {
	if ttl, ok := e.TTL(); ok {
		return ttl.Milliseconds()
	}
	if e == state.Never {
		return "never"
	}
	return "keep"
}

// How the script is run: by the hash by which the server knows it, or with its whole text.
const (
	byHash = "evalsha"
	byText = "eval"
)

// prepare makes the command that runs the script, in one of the two ways. The one before is done with.
func (c *call) prepare(ctx context.Context, name, script string) {
	c.stamp = new(stamp)
	c.args[0], c.args[1], c.args[3+c.keys] = name, script, c.stamp
	c.cmd = write{redis.NewCmd(ctx, c.args...), c.keys == 1 && name == byHash, c.shared}
}

// scriptLost reports a server that does not have the script. It has done nothing.
func (c *call) scriptLost() bool { return redis.HasErrorPrefix(c.cmd.Err(), "NOSCRIPT") }

// run runs one call, in the company of other callers' where there are any.
func (e *engine) run(ctx context.Context, c *call) error {
	err := e.attempt(ctx, c, byHash, e.script)
	if err != nil && c.scriptLost() {
		err = e.attempt(ctx, c, byText, applySource)
	}
	return err
}

func (e *engine) attempt(ctx context.Context, c *call, name, script string) error {
	c.prepare(ctx, name, script)
	if !e.lines.writes(ctx, c.key()).do(ctx, c.cmd, c.size) { // the command is the sender's now
		sent := !c.stamp.withdraw()
		c.cmd = write{Cmd: redis.NewCmd(ctx)}
		return writeError(ctx, context.Cause(ctx), sent)
	}
	return writeError(ctx, c.cmd.Err(), c.stamp.sent())
}

// runAll runs calls in one round trip, or one to each node of a cluster. Those that a server refused because it does not
// have the script are sent again.
func (e *engine) runAll(ctx context.Context, calls []*call) {
	again := e.pipeline(ctx, calls, byHash, e.script)
	if again != nil {
		e.pipeline(ctx, again, byText, applySource)
	}
}

func (e *engine) pipeline(ctx context.Context, calls []*call, name, script string) (lost []*call) {
	cmds := make([]redis.Cmder, len(calls))
	for i, c := range calls {
		c.prepare(ctx, name, script)
		cmds[i] = c.cmd
	}
	e.lines.exec(ctx, cmds...)
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
	if !ok || len(answers) != c.keys {
		return nil, fmt.Errorf("%w: the script answered %v", state.ErrOutcomeUnknown, c.cmd.Val())
	}
	outcomes := make([]state.Outcome, len(answers))
	for i, answer := range answers {
		text, _ := answer.(string)
		if outcomes[i], ok = outcomeOf(text, c.nonce(i)); !ok {
			return nil, fmt.Errorf("%w: the script answered %v", state.ErrOutcomeUnknown, answer)
		}
	}
	return outcomes, nil
}

func outcomeOf(answer, nonce string) (o state.Outcome, ok bool) {
	switch answer {
	case "done":
		return state.Outcome{Done: true}, true
	case "skipped":
		return state.Outcome{}, true
	case "conflict":
		return state.Outcome{Conflict: true}, true
	case "missing":
		return state.Outcome{Conflict: true, Absent: true}, true
	case "corrupt":
		return state.Outcome{Err: fmt.Errorf("%w: the Redis key is not a hash with a version", state.ErrCorrupt)}, true
	}
	if text, refused := strings.CutPrefix(answer, "-"); refused {
		return state.Outcome{Err: fmt.Errorf("%w: %w", answered(refusal(text)), refusal(text))}, true
	}
	version, err := strconv.ParseInt(answer, 10, 64)
	return state.Outcome{Done: true, Version: version, ETag: formatETag(answer, nonce)}, err == nil
}

// A refusal is an error of the server's that the script has met and passed on. Nothing was changed.
type refusal string

func (r refusal) Error() string { return string(r) }

// RedisError implements redis.Error.
func (refusal) RedisError() {}

func formatETag(version, nonce string) string {
	if nonce == "" {
		return version
	}
	return version + "-" + nonce
}
