package redisbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// How much a pipe gathers into one round trip, and how much may wait for the next.
const (
	batchCommands = 256
	batchBytes    = 1 << 20
	waitingOps    = 4096
)

// A pipe gathers the commands of many callers into one round trip: while one is on its way, the next gathers. One
// goroutine sends, so commands are executed in the order in which they were put in. What fails because Redis is away is
// sent again, in its place, until its caller's context ends.
type pipe struct {
	client *redis.Client
	cfg    Config
	copies *copies // nil: replicas are not waited for
	queue  chan *op
	stop   chan struct{}   // closed: send what waits, and end
	abort  context.Context //nolint:containedctx // a life of its own
	cut    context.CancelFunc
	ended  chan struct{}
}

// An op is what one caller has to be executed.
type op struct {
	ctx   context.Context //nolint:containedctx // the caller's, who waits elsewhere
	size  int
	add   func(p redis.Pipeliner) []redis.Cmder
	state atomic.Int32
	doubt bool // it may have been executed by an attempt that failed; the sender's
	cmds  []redis.Cmder
	err   error
	done  chan struct{} // closed when err is set
	after func(error)   // called before, by the sender, which must not wait in it
	then  *op           // executed next if this one was, and only then
}

const (
	opWaits int32 = iota
	opSent
	opGivenUp
)

func newPipe(client *redis.Client, cfg Config, replicas int) *pipe {
	p := &pipe{client: client, cfg: cfg, queue: make(chan *op, waitingOps), stop: make(chan struct{}), ended: make(chan struct{})}
	if replicas > 0 {
		p.copies = &copies{client: client, replicas: replicas}
	}
	p.abort, p.cut = context.WithCancel(context.Background())
	go p.run()
	return p
}

// put hands an op to the sender. It waits while too many wait already.
func (p *pipe) put(o *op) error {
	o.done = make(chan struct{})
	select {
	case <-p.stop:
		return bus.ErrClosed
	default:
	}
	select {
	case p.queue <- o:
		return nil
	case <-o.ctx.Done():
		return fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(o.ctx))
	case <-p.ended:
		return bus.ErrClosed
	}
}

// wait returns what became of an op, at the latest when its context ends.
func (p *pipe) wait(o *op) error {
	select {
	case <-o.done:
		return o.err
	case <-o.ctx.Done():
	case <-p.ended:
	}
	select {
	case <-o.done:
		return o.err
	default:
	}
	cause := context.Cause(o.ctx)
	if cause == nil {
		cause = bus.ErrClosed
	}
	if o.state.CompareAndSwap(opWaits, opGivenUp) {
		return fmt.Errorf("%w: %w", bus.ErrUnavailable, cause)
	}
	return fmt.Errorf("%w: %w", bus.ErrNotConfirmed, cause)
}

// do is put and wait.
func (p *pipe) do(ctx context.Context, add func(p redis.Pipeliner) []redis.Cmder) error {
	o := &op{ctx: ctx, add: add}
	if err := p.put(o); err != nil {
		return err
	}
	return p.wait(o)
}

// close sends what waits, until ctx ends.
func (p *pipe) close(ctx context.Context) {
	close(p.stop)
	select {
	case <-p.ended:
	case <-ctx.Done():
	}
	p.cut()
	<-p.ended
}

func (p *pipe) run() {
	defer close(p.ended)
	defer p.copies.end()
	var left []*op
	pause := p.cfg.RetryDelay
	for {
		batch := p.gather(left)
		if len(batch) == 0 || p.abort.Err() != nil {
			return
		}
		var err error
		if left, err = p.send(batch); err == nil {
			pause = p.cfg.RetryDelay
			continue
		}
		p.cfg.Logger.Debug("redis takes no commands", "waiting", len(left)+len(p.queue), "pause", pause, "error", err)
		select {
		case <-time.After(pause):
		case <-p.abort.Done():
			return
		}
		pause = min(2*pause, p.cfg.MaxRetryDelay)
	}
}

// gather takes what waits, up to a batch; it waits for the first. None: the pipe was closed.
func (p *pipe) gather(batch []*op) []*op {
	size := 0
	if len(batch) == 0 {
		select {
		case o := <-p.queue:
			batch, size = append(batch, o), o.size
		case <-p.stop:
			select {
			case o := <-p.queue:
				batch, size = append(batch, o), o.size
			default:
				return nil
			}
		}
	}
	for len(batch) < batchCommands && size < batchBytes {
		select {
		case o := <-p.queue:
			batch, size = append(batch, o), size+o.size
		default:
			return batch
		}
	}
	return batch
}

// send executes a batch, and returns what is to be sent next: what follows what was executed, and, with the reason, what
// is to be sent again.
func (p *pipe) send(batch []*op) (left []*op, failure error) {
	pipeline := p.pipeline()
	sent := batch[:0]
	for _, o := range batch {
		if o.ctx.Err() != nil || !o.state.CompareAndSwap(opWaits, opSent) && !o.doubt {
			o.finish(o.late())
			continue
		}
		o.cmds = o.add(pipeline)
		sent = append(sent, o)
	}
	if len(sent) == 0 {
		return nil, nil
	}
	_, _ = pipeline.Exec(p.abort) // each command has its own error
	missing := p.copies.await(p.abort, sent)
	for _, o := range sent {
		err := firstError(o.cmds)
		if err == nil {
			err = missing
		}
		if redis.HasErrorPrefix(err, "WRONGTYPE") {
			err = fmt.Errorf("%w: a key of that name is no stream: %w", bus.ErrInvalid, err)
		}
		if err == nil || !passing(err) {
			o.finish(err)
			if err == nil && o.then != nil {
				o.then.done = make(chan struct{})
				left = append(left, o.then)
			}
			continue
		}
		failure = err
		if o.doubt = o.doubt || !refused(err); !o.doubt {
			o.state.CompareAndSwap(opSent, opWaits)
		}
		left = append(left, o)
	}
	return left, failure
}

// late is why an op is not sent any more whose context has ended: an attempt that failed may have been executed.
func (o *op) late() error {
	if o.doubt {
		return fmt.Errorf("%w: %w", bus.ErrNotConfirmed, context.Cause(o.ctx))
	}
	return fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(o.ctx))
}

func (p *pipe) pipeline() redis.Pipeliner {
	if p.copies != nil {
		return p.copies.connection().Pipeline()
	}
	return p.client.Pipeline()
}

func (o *op) finish(err error) {
	if o.after != nil {
		o.after(err)
	}
	o.err = err
	close(o.done)
}

func firstError(cmds []redis.Cmder) error {
	for _, c := range cmds {
		if err := c.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
	}
	return nil
}

// passing reports whether a command may succeed when it is sent again later.
func passing(err error) bool {
	var answer redis.Error
	return !errors.As(err, &answer) || refused(err)
}

// refused reports whether Redis has surely not executed a command that it may execute later.
func refused(err error) bool {
	var network *net.OpError
	if errors.As(err, &network) && network.Op == "dial" || errors.Is(err, redis.ErrPoolTimeout) {
		return true
	}
	var answer redis.Error
	if !errors.As(err, &answer) {
		return false
	}
	word, _, _ := strings.Cut(answer.Error(), " ")
	switch word {
	case "LOADING", "OOM", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOAUTH", "WRONGPASS", "NOPERM", "MISCONF", "NOREPLICAS":
		return true
	case "ERR":
		return strings.Contains(answer.Error(), "max number of clients")
	}
	return false
}
