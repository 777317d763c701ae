package redisstate

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// How much one run of the script changes: the server does nothing else meanwhile.
const (
	runChanges = 32
	runBytes   = 256 << 10 // of values
)

// A run is one run of the script that makes several callers' changes, each judged by itself: to run it costs the server
// about as much as a change does.
type run struct {
	of   []write
	size int
	cmd  write
}

// join puts what commands there are of one change each into as few runs as may be. A change that stays alone, and every
// other command, is sent as it is.
func join(ctx context.Context, cmds []redis.Cmder) (sent []redis.Cmder, runs []*run) {
	var open *run
	for i, cmd := range cmds {
		w, ok := cmd.(write)
		if !ok || !w.single {
			if sent != nil {
				sent = append(sent, cmd)
			}
			continue
		}
		if sent == nil {
			sent = append(make([]redis.Cmder, 0, len(cmds)), cmds[:i]...)
		}
		if open == nil || !open.takes(w) {
			open = &run{}
			runs = append(runs, open)
		}
		open.of, open.size = append(open.of, w), open.size+w.size()
	}
	if runs == nil {
		return cmds, nil
	}
	joint := runs[:0]
	for _, r := range runs {
		if len(r.of) == 1 {
			sent = append(sent, r.of[0])
			continue
		}
		r.prepare(ctx)
		sent, joint = append(sent, r.cmd), append(joint, r)
	}
	return sent, joint
}

func (r *run) takes(w write) bool { return len(r.of) < runChanges && r.size+w.size() <= runBytes }

// prepare makes the command. Each change keeps its own stamp, and so may be withdrawn by itself.
func (r *run) prepare(ctx context.Context) {
	first := r.of[0].Args()
	args := append(make([]any, 0, 4+7*len(r.of)), first[0], first[1], len(r.of))
	for _, w := range r.of {
		args = append(args, w.Args()[3])
	}
	args = append(args, "each")
	for _, w := range r.of {
		args = append(args, w.Args()[4:]...)
	}
	r.cmd = write{Cmd: redis.NewCmd(ctx, args...)}
}

// deliver gives each change its answer. An error of the server's, who has done nothing, is not everybody's: it may be due to
// one of the changes alone. It is returned, and nothing is delivered.
func (r *run) deliver() error {
	answers, err := r.cmd.Slice()
	var refused redis.Error
	switch {
	case errors.As(err, &refused) && !redis.HasErrorPrefix(err, "NOSCRIPT"):
		return err
	case err == nil && len(answers) != len(r.of):
		err = fmt.Errorf("the script gave %d answers to %d changes", len(answers), len(r.of))
	}
	for i, w := range r.of {
		if err != nil {
			w.SetErr(err)
			continue
		}
		w.SetVal(answers[i : i+1])
	}
	return nil
}

// alone are the changes as commands of their own.
func (r *run) alone() []redis.Cmder {
	cmds := make([]redis.Cmder, len(r.of))
	for i, w := range r.of {
		cmds[i] = w
	}
	return cmds
}
