package redisstate

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// How much of what waits in a line is sent in one round trip, and how many of those are under way at once. One at a time
// would leave the server idle while its answers are read here.
const (
	batchCommands = 128
	batchBytes    = 1 << 20 // of values to be written
	lanes         = 2
)

// A line is where callers' commands for one server gather: while as many round trips as there are lanes are under way, the
// next ones wait, and then go together. Who finds a lane free goes at once, alone.
type line struct {
	of *lines

	mu      sync.Mutex
	busy    int // lanes
	waiting []*want
}

// A want is what one caller has to be executed.
type want struct {
	ctx   context.Context //nolint:containedctx // the caller's, who waits elsewhere
	cmd   redis.Cmder
	size  int
	since time.Time
	done  chan struct{} // closed when cmd has its answer or error
}

// do has a command executed, and reports whether its answer or error is in it. False: the context ended first, and the
// command must not be looked at any more. A caller who goes alone waits until the context's deadline, or the client's timeout if
// that is earlier: go-redis heeds deadlines, and no cancellation, once it waits for an answer.
func (l *line) do(ctx context.Context, cmd redis.Cmder, size int) bool {
	if size >= batchBytes { // it would hold up everybody in its company
		l.of.alone(ctx, cmd)
		return true
	}
	l.mu.Lock()
	if l.busy < lanes {
		l.busy++
		l.mu.Unlock()
		l.of.alone(ctx, cmd)
		l.leave() //nolint:contextcheck // the lane goes to other callers
		return true
	}
	if c, ok := cmd.(write); ok {
		c.keep()
	}
	w := &want{ctx: ctx, cmd: cmd, size: size, since: time.Now(), done: make(chan struct{})}
	l.waiting = append(l.waiting, w)
	l.mu.Unlock()
	select {
	case <-w.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// leave gives a lane to those who wait, or back.
func (l *line) leave() {
	l.mu.Lock()
	if len(l.waiting) == 0 {
		l.busy--
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	l.of.serve(l)
}

// serve sends what waits until nothing does.
func (l *line) serve() {
	for batch := l.take(); batch != nil; batch = l.take() {
		l.of.together(batch)
	}
}

// take returns the next batch. None: the lane was given back.
func (l *line) take() []*want {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, size := 0, 0
	for n < len(l.waiting) && n < batchCommands && size < batchBytes {
		size += l.waiting[n].size
		n++
	}
	if n == 0 {
		l.busy--
		return nil
	}
	batch := l.waiting[:n:n]
	l.waiting = l.waiting[n:]
	if len(l.waiting) == 0 {
		l.waiting = nil
	}
	return batch
}

// lines are those of a driver: for each server two, so that a batch of reads may be sent again when it fails.
type lines struct {
	client  redis.UniversalClient
	cluster *redis.ClusterClient // the client, if it is one of a cluster
	timeout time.Duration
	senders sync.WaitGroup
	apart   atomic.Bool // what answers is several servers in the guise of one: a command must not have keys of several

	mu     sync.RWMutex
	closed bool
	served map[string]*[2]line // by address; "" for all of what is no cluster
}

func newLines(client redis.UniversalClient, timeout time.Duration) *lines {
	l := &lines{client: client, timeout: timeout, served: map[string]*[2]line{}}
	l.cluster, _ = client.(*redis.ClusterClient)
	return l
}

func (l *lines) reads(ctx context.Context, key string) *line  { return &l.to(ctx, key)[0] }
func (l *lines) writes(ctx context.Context, key string) *line { return &l.to(ctx, key)[1] }

// to returns the lines to the server of a key. While nobody knows which one that is, all keys share them.
func (l *lines) to(ctx context.Context, key string) *[2]line {
	address := ""
	if l.cluster != nil {
		if node, err := l.cluster.MasterForKey(ctx, key); err == nil {
			address = node.Options().Addr
		}
	}
	l.mu.RLock()
	pair, ok := l.served[address]
	l.mu.RUnlock()
	if ok {
		return pair
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if pair, ok = l.served[address]; !ok {
		pair = &[2]line{{of: l}, {of: l}}
		l.served[address] = pair
	}
	return pair
}

// serve has a line served, by another goroutine than the caller's, who has an answer. After close nothing takes time.
func (l *lines) serve(line *line) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		line.serve()
		return
	}
	l.senders.Go(line.serve)
}

// alone executes one command for its own caller.
func (l *lines) alone(ctx context.Context, cmd redis.Cmder) {
	if l.cluster != nil { // whose pipelines are repeated by other rules than its single commands
		l.exec(ctx, cmd)
		return
	}
	if err := l.client.Process(ctx, cmd); err != nil {
		cmd.SetErr(err)
	}
}

// together executes what several callers want. Each waits no longer than its own context lasts; the round trip lasts as
// long as somebody may wait for it.
func (l *lines) together(batch []*want) {
	now := time.Now()
	var until time.Time
	cmds := make([]redis.Cmder, 0, len(batch))
	for _, w := range batch {
		deadline := w.since.Add(l.timeout)
		if own, ok := w.ctx.Deadline(); ok && own.Before(deadline) {
			deadline = own
		}
		switch {
		case w.ctx.Err() != nil:
			w.cmd.SetErr(w.ctx.Err())
		case deadline.Before(now):
			w.cmd.SetErr(context.DeadlineExceeded)
		default:
			cmds = append(cmds, w.cmd)
			if deadline.After(until) {
				until = deadline
			}
		}
	}
	if len(cmds) > 0 {
		ctx, cancel := context.WithDeadline(context.Background(), until)
		l.exec(ctx, cmds...)
		cancel()
	}
	for _, w := range batch {
		close(w.done)
	}
}

// exec executes commands in one round trip. Each has its own answer or error then. What may go together as one command does.
func (l *lines) exec(ctx context.Context, cmds ...redis.Cmder) {
	if l.cluster != nil || l.apart.Load() {
		l.pipeline(ctx, cmds)
		return
	}
	cmds, runs := join(ctx, cmds)
	l.pipeline(ctx, cmds)
	var again []redis.Cmder
	for _, r := range runs {
		if err := r.deliver(); err != nil {
			if redis.HasErrorPrefix(err, "CROSSSLOT") {
				l.apart.Store(true)
			}
			again = append(again, r.alone()...)
		}
	}
	if again != nil {
		l.pipeline(ctx, again)
	}
}

func (l *lines) pipeline(ctx context.Context, cmds []redis.Cmder) {
	pipe := l.client.Pipeline()
	if err := pipe.BatchProcess(ctx, cmds...); err != nil {
		for _, cmd := range cmds {
			cmd.SetErr(err)
		}
		return
	}
	_, _ = pipe.Exec(ctx)
	if l.cluster != nil && slices.ContainsFunc(cmds, func(cmd redis.Cmder) bool { return unanswered(cmd.Err()) }) {
		l.cluster.ReloadState(ctx) // in the background; the client would go on asking a master that is gone for a minute
	}
}

// close is for after the client was closed: what waits fails at once. It waits for the senders.
func (l *lines) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.senders.Wait()
}
