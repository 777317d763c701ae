package redisstate

import (
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"strconv"
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

// A call is one run of the script.
type call struct {
	keys []string
	args []any
	cmd  write
}

func newCall(prefix string, now time.Time, changes ...state.Change) *call {
	c := &call{keys: make([]string, len(changes)), args: make([]any, 1, 1+5*len(changes))}
	c.args[0] = formatTime(now)
	for i := range changes {
		change := &changes[i]
		c.keys[i] = prefix + change.Key
		operation, nonce := "save", ""
		if change.Delete {
			operation = "delete"
		} else {
			nonce = rand.Text()[:16]
		}
		c.args = append(c.args, operation, conditionArg(change), expiryArg(change.Expiry), nonce, change.Value)
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

// command returns the command that runs the script, named by its hash or with its whole text.
func (c *call) command(ctx context.Context, name, script string) write {
	args := make([]any, 0, 3+len(c.keys)+len(c.args))
	args = append(args, name, script, len(c.keys))
	for _, key := range c.keys {
		args = append(args, key)
	}
	return write{redis.NewCmd(ctx, append(args, c.args...)...)}
}

// run sends all calls in one round trip, naming the script by its hash; each call's command holds its answer or error. A server that does not have the
// script has done nothing, so the calls it refused are sent again with the whole text.
func run(ctx context.Context, client redis.UniversalClient, hash string, calls []*call) {
	exec(ctx, client, calls, "evalsha", hash)
	var again []*call
	for _, c := range calls {
		if redis.HasErrorPrefix(c.cmd.Err(), "NOSCRIPT") {
			again = append(again, c)
		}
	}
	if again != nil {
		exec(ctx, client, again, "eval", applySource)
	}
}

func exec(ctx context.Context, client redis.UniversalClient, calls []*call, name, script string) {
	pipe := client.Pipeline()
	for _, c := range calls {
		c.cmd = c.command(ctx, name, script)
		if err := pipe.Process(ctx, c.cmd); err != nil {
			c.cmd.SetErr(err)
		}
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
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
		outcomes[i] = outcomeOf(answer)
	}
	return outcomes, nil
}

func outcomeOf(answer []any) state.Outcome {
	switch answer[0] {
	case "done":
		o := state.Outcome{Done: true}
		if len(answer) == 3 {
			o.Version, _ = answer[1].(int64)
			nonce, _ := answer[2].(string)
			o.ETag = formatETag(strconv.FormatInt(o.Version, 10), nonce)
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

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
