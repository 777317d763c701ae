package redisbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/internal/routes"
)

// How long a registration is relied on.
const (
	topicRefresh = 30 * time.Second // a publisher says again that a topic is in use
	topicAge     = 30 * time.Minute // a topic that nobody published to for so long, and nothing is left of, is forgotten
	newsAge      = 5 * time.Minute  // older news may have been trimmed: the list is read anew
	readerTTL    = 20 * time.Second // of a consumer that gives no sign of life
)

// A record is a queue as the registry has it.
type record struct {
	Bindings  []bus.Binding `json:"bindings"`
	Durable   bool          `json:"durable"`
	Exclusive bool          `json:"exclusive"`
	Expires   int64         `json:"expires,omitempty"` // ms that it stays without a reader; 0: for ever
	MaxCount  int           `json:"maxMessages,omitempty"`
	MaxBytes  int64         `json:"maxBytes,omitempty"`
	Overflow  string        `json:"overflow,omitempty"` // the queue that hears when there is more
	Inbox     string        `json:"inbox,omitempty"`    // where what is for this queue alone goes, if it has no stream of its own
}

func (r record) wants(exchange, topic string) bool {
	return slices.ContainsFunc(r.Bindings, func(b bus.Binding) bool { return b.Exchange == exchange && matches(b.Pattern, topic) })
}

// The registry knows the topics and queues of this Redis, those of other nodes included.
type registry struct {
	client *redis.Client
	run    scripts

	mu      sync.Mutex
	version string
	queues  map[string]record
	bound   map[string]*routes.Tree[string] // exchange -> the names of queues
	topics  map[string]struct{}
	news    position
	read    time.Time            // when the topics were last brought up to date
	in      map[string]time.Time // topics that this driver has registered, by when
}

func newRegistry(client *redis.Client, run scripts) *registry {
	return &registry{client: client, run: run, in: make(map[string]time.Time)}
}

// known brings the queues up to date. The map must not be changed.
func (r *registry) known(ctx context.Context) (map[string]record, error) {
	version, err := r.client.Get(ctx, versionKey).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	r.mu.Lock()
	if r.queues != nil && r.version == version {
		defer r.mu.Unlock()
		return r.queues, nil
	}
	r.mu.Unlock()
	all, err := r.client.HGetAll(ctx, queuesKey).Result()
	if err != nil {
		return nil, err
	}
	queues := make(map[string]record, len(all))
	for name, text := range all {
		var q record
		if json.Unmarshal([]byte(text), &q) == nil {
			queues[name] = q
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version, r.queues, r.bound = version, queues, bindings(queues)
	return queues, nil
}

func bindings(queues map[string]record) map[string]*routes.Tree[string] {
	bound := make(map[string]*routes.Tree[string])
	for name, q := range queues {
		for _, b := range q.Bindings {
			if bound[b.Exchange] == nil {
				bound[b.Exchange] = &routes.Tree[string]{}
			}
			bound[b.Exchange].Add(b.Pattern, name)
		}
	}
	return bound
}

// boundTo are the queues that get what is published to an exchange under a topic.
func (r *registry) boundTo(ctx context.Context, exchange, topic string) (map[string]record, error) {
	if _, err := r.known(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	found := make(map[string]record)
	if bound := r.bound[exchange]; bound != nil {
		for _, name := range bound.Match(topic) {
			found[name] = r.queues[name]
		}
	}
	return found, nil
}

// routable reports whether a queue is bound where a message is going.
func (r *registry) routable(ctx context.Context, exchange, topic string) (bool, error) {
	queues, err := r.boundTo(ctx, exchange, topic)
	return len(queues) > 0, err
}

// registered reports whether this driver has lately said that a topic is in use.
func (r *registry) registered(topic string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.in[topic]) < topicRefresh
}

// register says that a topic is in use. If it is new, the durable queues with a pattern that it matches get their groups
// before the first message comes: their readers may be away.
//
// bus.ErrInvalid: there is a key of that name that is no stream, another program's.
func (r *registry) register(ctx context.Context, exchange, topic string) error {
	kind, err := r.client.Type(ctx, topic).Result()
	if err != nil {
		return err
	}
	if kind != "stream" && kind != "none" {
		return fmt.Errorf("%w: topic %q cannot be used on this Redis: the key of that name is of the type %s", bus.ErrInvalid, topic, kind)
	}
	fresh, err := r.run.register.Run(ctx, r.client, []string{topicsKey, newsKey}, topic).Int()
	if err != nil {
		return err
	}
	if fresh == 1 {
		queues, err := r.boundTo(ctx, exchange, topic)
		if err != nil {
			return err
		}
		for name, q := range queues {
			if q.Inbox == "" {
				if err := r.group(ctx, topic, name, "0-0"); err != nil {
					return err
				}
			}
		}
	}
	r.note(topic)
	return nil
}

// registerExchange says that another exchange is in use.
func (r *registry) registerExchange(ctx context.Context, exchange string) error {
	if err := r.client.SAdd(ctx, exchangesKey, exchange).Err(); err != nil {
		return err
	}
	r.note(exchangeKey(exchange))
	return nil
}

func (r *registry) note(stream string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.in) > 100_000 {
		clear(r.in)
	}
	r.in[stream] = time.Now()
}

// group makes a queue's group on a stream, and notes where it begins. Where there was one it stays as it is.
func (r *registry) group(ctx context.Context, stream, queue, at string) error {
	began, err := r.run.group.Run(ctx, r.client, []string{stream}, queue, at).Text()
	if err != nil || began == "" {
		return err
	}
	return r.client.HSetNX(ctx, positionsKey(queue), stream, began).Err()
}

// current brings the topics up to date, and returns those that match with the news up to which it has read.
func (r *registry) current(ctx context.Context, match func(topic string) bool) ([]string, position, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.topics == nil || time.Since(r.read) > newsAge {
		if err := r.reload(ctx); err != nil {
			return nil, position{}, err
		}
	} else {
		news, err := r.client.XRange(ctx, newsKey, "("+r.news.String(), "+").Result()
		if err != nil {
			return nil, position{}, err
		}
		for _, n := range news {
			if topic, ok := n.Values["topic"].(string); ok {
				r.topics[topic] = struct{}{}
			}
			r.news = parsePosition(n.ID)
		}
	}
	r.read = time.Now()
	var found []string
	for topic := range r.topics {
		if match(topic) {
			found = append(found, topic)
		}
	}
	return found, r.news, nil
}

func (r *registry) reload(ctx context.Context) error {
	last, err := lastMark(ctx, r.client, newsKey)
	if err != nil {
		return err
	}
	all, err := r.client.ZRange(ctx, topicsKey, 0, -1).Result()
	if err != nil {
		return err
	}
	r.news, r.topics = last.position, make(map[string]struct{}, len(all))
	for _, topic := range all {
		r.topics[topic] = struct{}{}
	}
	return nil
}

// lastMark is where the newest entry is that a stream ever had; the beginning where there is no stream.
func lastMark(ctx context.Context, client *redis.Client, stream string) (mark, error) {
	list, err := lastMarks(ctx, client, []string{stream})
	if err != nil {
		return mark{}, err
	}
	return list[0], nil
}

func lastMarks(ctx context.Context, client *redis.Client, streams []string) ([]mark, error) {
	pipeline := client.Pipeline()
	infos := make([]*redis.XInfoStreamCmd, len(streams))
	for i, stream := range streams {
		infos[i] = pipeline.XInfoStream(ctx, stream)
	}
	_, _ = pipeline.Exec(ctx) // each has its own error
	list := make([]mark, len(streams))
	for i, info := range infos {
		switch err := info.Err(); {
		case err == nil:
			list[i] = mark{parsePosition(info.Val().LastGeneratedID), info.Val().EntriesAdded}
		case !redis.HasErrorPrefix(err, "no such key"):
			return nil, err
		}
	}
	return list, nil
}

// declare puts a queue into the registry with its first reader, or adds a reader to it.
func (r *registry) declare(ctx context.Context, name string, q record, reader string) (joined bool, err error) {
	answer, err := r.run.declare.Run(ctx, r.client, []string{queuesKey, readersKey(name), versionKey, removedKey},
		name, q.text(), reader, readerTTL.Milliseconds(), fmt.Sprint(q.Durable), fmt.Sprint(q.Exclusive)).Int()
	if err != nil {
		return false, err
	}
	switch answer {
	case declaredExclusive:
		return false, fmt.Errorf("%w: queue %q is read by another, and one of the two wants it for itself", bus.ErrInvalid, name)
	case declaredOther:
		return false, fmt.Errorf("%w: queue %q exists and is durable, or is not, unlike what was asked", bus.ErrInvalid, name)
	}
	return answer == declaredJoined, nil
}

// A standing is a reader's place in the registry. Who has left is not renewed by a renewal that was on its way.
type standing struct {
	mu   sync.Mutex
	left bool
}

// renew says that the reader lives, unless it has left. false: its queue was deleted.
func (s *standing) renew(ctx context.Context, r *registry, name string, q record, reader string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return true, nil
	}
	return r.renew(ctx, name, q, reader)
}

// end is leave where the queue is gone already.
func (s *standing) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
}

// leave takes the reader away for good, and reports whether the queue went with it.
func (s *standing) leave(ctx context.Context, r *registry, name string, durable bool, reader string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
	return r.leave(ctx, name, durable, reader)
}

// renew says that a reader lives. false: its queue was deleted.
func (r *registry) renew(ctx context.Context, name string, q record, reader string) (bool, error) {
	return r.run.renew.Run(ctx, r.client, []string{queuesKey, readersKey(name), versionKey, removedKey},
		name, q.text(), reader, readerTTL.Milliseconds()).Bool()
}

// renewAll is renew for many consumers by one round trip, and returns those whose queue was deleted.
func (r *registry) renewAll(ctx context.Context, some []*aloneConsumer) (gone []*aloneConsumer, err error) {
	pipeline := r.client.Pipeline()
	answers := make([]*redis.Cmd, len(some))
	for i, c := range some {
		answers[i] = r.run.renew.EvalSha(ctx, pipeline, []string{queuesKey, readersKey(c.q.Name), versionKey, removedKey},
			c.q.Name, c.record.text(), c.id, readerTTL.Milliseconds())
	}
	if len(some) > 0 {
		_, err = pipeline.Exec(ctx)
	}
	for i, answer := range answers {
		if there, err := answer.Bool(); err == nil && !there {
			gone = append(gone, some[i])
		}
	}
	return gone, err
}

// leave takes a reader away, and reports whether the queue went with it.
func (r *registry) leave(ctx context.Context, name string, durable bool, reader string) (bool, error) {
	return r.run.leave.Run(ctx, r.client, []string{queuesKey, readersKey(name), versionKey}, name, reader, fmt.Sprint(durable)).Bool()
}

func (r *registry) remove(ctx context.Context, name string) error {
	return r.run.remove.Run(ctx, r.client, []string{queuesKey, readersKey(name), versionKey, removedKey}, name).Err()
}

func (r record) text() string {
	text, _ := json.Marshal(r) //nolint:errchkjson // strings and booleans only
	return string(text)
}
