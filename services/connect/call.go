package connect

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/problem"
)

// The headers by which a service knows whose call it is. The gateway alone sets them; a node that asks who calls takes them from nobody
// but other nodes.
const (
	SessionHeader = "Bannou-Session-Id"
	AccountHeader = "Bannou-Account-Id"
)

// A call is what a client asks for.
type call struct {
	reply       reply
	channel     uint16
	endpoint    endpoint
	allowed     bool
	body        []byte
	contentType string
}

// calls are those of a session that are under way, or wait for the one before them on their channel.
type calls struct {
	mu       sync.Mutex
	inFlight int
	channels map[uint16][]call // present while a call of the channel is under way, with those that wait
	running  sync.WaitGroup
	closed   bool
	idle     chan struct{} // closed when no call is under way any more; nil while nobody waits for that
}

// start makes a call, when those before it on its channel are through. Otherwise it says which limit it met.
func (c *calls) start(v *session, next call) (*problem.Problem, string) {
	cfg := &v.s.cfg
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, "" // nobody is there to hear it
	}
	if c.inFlight >= cfg.MaxCalls {
		return problem.New(problem.TooManyRequests, "the session has %d calls under way, which is its limit; this one was not made", c.inFlight), "calls"
	}
	if next.channel != 0 {
		waiting, busy := c.channels[next.channel]
		if busy {
			c.inFlight++
			c.channels[next.channel] = append(waiting, next)
			return nil, ""
		}
		if len(c.channels) >= cfg.MaxChannels {
			return problem.New(problem.TooManyRequests, "the session uses %d channels, which is its limit; this call was not made", len(c.channels)), "channels"
		}
		if c.channels == nil {
			c.channels = map[uint16][]call{}
		}
		c.channels[next.channel] = nil
	}
	c.inFlight++
	c.running.Go(func() { c.run(v, next) })
	return nil, ""
}

// run makes a call, and those that wait behind it.
func (c *calls) run(v *session, next call) {
	for more := true; more; {
		now, through := next, false
		end := func() { through = true; next, more = c.next(now.channel) }
		if a, open := v.do(now); open {
			v.answer(now, a, end)
		}
		if !through {
			end()
		}
	}
}

// next ends a call, and takes the one behind it.
func (c *calls) next(channel uint16) (next call, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight--
	defer c.tellIdle()
	if channel == 0 {
		return next, false
	}
	waiting := c.channels[channel]
	if len(waiting) == 0 || c.closed {
		c.inFlight -= len(waiting)
		delete(c.channels, channel)
		return next, false
	}
	next, waiting[0] = waiting[0], call{}
	c.channels[channel] = waiting[1:]
	return next, true
}

// tellIdle tells who waits that no call is under way; the lock is held.
func (c *calls) tellIdle() {
	if c.inFlight == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// through is closed when no call is under way.
func (c *calls) through() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	idle := c.idle
	if idle == nil {
		idle = make(chan struct{})
		c.idle = idle
		c.tellIdle()
	}
	return idle
}

// wait waits until all are through; nothing is begun any more.
func (c *calls) wait() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.running.Wait()
}

// answer sends what came of a call, when there is room: several answers at once may be more than the client's share, and it has taken
// none of them yet. Until then the call is under way; it has ended before the client can read the answer, and make another.
func (v *session) answer(c call, a answer, end func()) {
	f := c.reply.frame(a)
	f.placed = end
	v.out.putPatiently(f, v.life.Done())
}

// do makes a call of a service. It ends with the connection: open is false then, and there is nobody to answer, since the close says why.
// The endpoint is looked up again: what was revoked while the call waited is not called.
func (v *session) do(c call) (a answer, open bool) {
	if _, allowed := v.named(c.endpoint); !allowed {
		v.s.meter.refused(v.life, "forbidden")
		return answerOf(problem.New(problem.Forbidden, "the session may not call this endpoint any more")), true
	}
	begin := time.Now()
	v.s.calling.Add(1)
	defer v.s.calling.Add(-1)
	ctx, cancel := context.WithTimeout(v.life, v.s.cfg.CallTimeout)
	defer cancel()
	a, err := v.request(ctx, c)
	open = err == nil || v.life.Err() == nil
	if err != nil {
		a = answerOf(callProblem(ctx, err))
	}
	v.s.meter.called(v.life, c.endpoint.service, codeOf(a.status), time.Since(begin))
	return a, open
}

// request passes a call on to the service, its body as it is.
func (v *session) request(ctx context.Context, c call) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, c.endpoint.method, c.endpoint.path, bytes.NewReader(c.body))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set(SessionHeader, v.id)
	r.Header.Set(AccountHeader, v.record.AccountID)
	if len(c.body) > 0 {
		r.Header.Set("Content-Type", c.contentType)
	}
	response, err := v.s.cfg.Caller.Do(ctx, c.endpoint.service, r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	most := v.s.cfg.MaxResponseBytes
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(most)+1))
	if err != nil {
		return answer{}, err
	}
	if len(body) > most {
		return answer{}, problem.New(problem.BadGateway, "the service answers with more than %d bytes; it may have done what was asked", most)
	}
	return answer{status: response.StatusCode, body: body, json: isJSON(response.Header.Get("Content-Type"))}, nil
}

func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == contentTypeJSON || strings.HasSuffix(media, "+json"))
}

// callProblem is why a call has no answer.
func callProblem(ctx context.Context, err error) *problem.Problem {
	if p, is := errors.AsType[*problem.Problem](err); is {
		return p
	}
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		return problem.New(problem.Timeout, "the service did not answer in time: it may or may not have done what was asked").Because(err)
	}
	switch _, code := mesh.ErrorStatus(err); problem.Code(code) {
	case problem.UnknownTarget, problem.NoEndpoint, problem.CircuitOpen, problem.Overloaded:
		return problem.New(problem.Unavailable, "no node with the service takes requests now; nothing was done").Because(err)
	default:
		return problem.New(problem.BadGateway, "the service broke off: it may or may not have done what was asked").Because(err)
	}
}

// problemCode is the code of a problem that a service answers with, as far as there is one.
func problemCode(body []byte) string {
	var p struct {
		Code string `json:"code"`
	}
	if json.Unmarshal(body, &p) != nil || len(p.Code) > 64 {
		return ""
	}
	return p.Code
}
