package sagatest

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/sagas"
)

// Chaos is what happens to messages on their way. The zero value harms none.
type Chaos struct {
	Seed   uint64
	Delay  time.Duration // each takes up to so long, so that they overtake one another
	Double float64       // the share of those that come twice
	Lose   float64       // the share of those that never come, and of calls whose request or answer is lost
}

// A Command is what the saga sent to a service.
type Command struct {
	ID     string // the same each time it is sent: its message id, or its idempotency key
	Topic  string // of an event
	Target string // of a call
	Method string
	Undoes string // the id of the command that it undoes; of an event
	Body   jsontext.Value
}

// Decode decodes the body.
func (c Command) Decode(into any) error { return json.Unmarshal(c.Body, into) }

// A World is a saga with the services that it talks to. It belongs to one goroutine.
type World struct {
	saga        *sagas.Saga
	chaos       Chaos
	random      *rand.Rand
	now         time.Time
	onTheWay    arrivals
	count       int
	subscribers map[string]func(Command)
	servers     map[string]func(Command) (any, error)

	instances map[string]sagas.Instance
	taken     map[string]bool
	letters   []string
	history   map[string][]string
	issued    map[string][]Command
}

// An arrival is something that happens at a time.
type arrival struct {
	at  time.Time
	seq int
	do  func()
}

type arrivals []arrival

func (a arrivals) Len() int { return len(a) }
func (a arrivals) Less(i, j int) bool {
	return a[i].at.Before(a[j].at) || a[i].at.Equal(a[j].at) && a[i].seq < a[j].seq
}
func (a arrivals) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *arrivals) Push(x any)   { *a = append(*a, x.(arrival)) }
func (a *arrivals) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// New makes a world in which nothing has happened. Its clock begins at 2026-01-01.
func New(saga *sagas.Saga, chaos Chaos) *World {
	return &World{
		saga: saga, chaos: chaos, random: rand.New(rand.NewPCG(chaos.Seed, 0)), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		subscribers: map[string]func(Command){}, servers: map[string]func(Command) (any, error){},
		instances: map[string]sagas.Instance{}, taken: map[string]bool{}, history: map[string][]string{}, issued: map[string][]Command{},
	}
}

// Become has instances go on with another definition of the saga, as after a new start of a program in which it was changed.
func (w *World) Become(saga *sagas.Saga) { w.saga = saga }

// Now is the time of the world's clock.
func (w *World) Now() time.Time { return w.now }

// Random is what the world's chance comes from, for services that have some of their own.
func (w *World) Random() *rand.Rand { return w.random }

// Subscribe has a function handle the events that the saga publishes under a topic.
func (w *World) Subscribe(topic string, handle func(c Command)) { w.subscribers[topic] = handle }

// Serve has a function answer calls of a method. Its error is a *sagas.Refusal, or makes the attempt fail.
func (w *World) Serve(target, method string, handle func(c Command) (answer any, err error)) {
	w.servers[target+" "+method] = handle
}

// Send sends an event to the saga, as a service does. It gets an id unless it has one: services that answer twice with one id say the same twice.
func (w *World) Send(topic string, e bus.Event) { w.SendAfter(0, topic, e) }

// SendAfter sends an event after a time.
func (w *World) SendAfter(d time.Duration, topic string, e bus.Event) {
	id, _ := e.Stamp(w.id(), w.now)
	body, err := json.Marshal(e)
	if err != nil {
		panic(err) // the test's own event
	}
	w.travel(d, func() { w.arrive(id, topic, body) })
}

func (w *World) id() string {
	var raw [16]byte
	for i := range raw {
		raw[i] = byte(w.random.UintN(256))
	}
	return uuid.UUID(raw).String()
}

// travel has something arrive once, twice or never.
func (w *World) travel(d time.Duration, do func()) {
	if w.random.Float64() < w.chaos.Lose {
		return
	}
	w.at(w.now.Add(d+w.delay()), do)
	if w.random.Float64() < w.chaos.Double {
		w.at(w.now.Add(d+w.delay()), do)
	}
}

func (w *World) delay() time.Duration {
	if w.chaos.Delay <= 0 {
		return 0
	}
	return time.Duration(w.random.Int64N(int64(w.chaos.Delay)))
}

func (w *World) at(t time.Time, do func()) {
	w.count++
	heap.Push(&w.onTheWay, arrival{t, w.count, do})
}

// maxSteps is how much may happen in one Run: a saga that goes on for longer goes on for ever.
const maxSteps = 1_000_000

// Run lets happen what there is, until nothing is on its way and nothing is due any more. It panics when that does not come to an end.
func (w *World) Run() {
	for n := 0; w.Step(); n++ {
		if n > maxSteps {
			panic("sagatest: the saga does not come to rest")
		}
	}
}

// Step lets the next thing happen, and sets the clock to its time. False: there is none.
func (w *World) Step() bool {
	if len(w.onTheWay) == 0 {
		return false
	}
	next := heap.Pop(&w.onTheWay).(arrival)
	w.now = next.at
	next.do()
	return true
}

// Instance is an instance as it is. Version is 0 where there is none.
func (w *World) Instance(key string) sagas.Instance { return w.instances[key] }

// Letters are the topics of the events that became dead letters.
func (w *World) Letters() []string { return w.letters }

// History tells what an instance was given, and what it was after each of it, as "order.placed -> reserving (running)".
func (w *World) History(key string) []string { return w.history[key] }

// Issued are the commands of an instance in the order in which it first issued them, each once.
func (w *World) Issued(key string) []Command { return w.issued[key] }

func (w *World) issue(key string, c Command) {
	if !slices.ContainsFunc(w.issued[key], func(other Command) bool { return other.ID == c.ID }) {
		w.issued[key] = append(w.issued[key], c)
	}
}

// Ask gives an instance a request of a person: sagas.KindRetry, KindCompensate or KindCancel. It returns why not, where it does not do so.
func (w *World) Ask(key string, kind sagas.Kind, r sagas.Request) (refused string) {
	body, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return w.give(key, sagas.Message{ID: w.id(), Kind: kind, Body: body}).Reason
}

// arrive gives the saga an event.
func (w *World) arrive(id, topic string, body jsontext.Value) {
	key, err := w.saga.Key(topic, body)
	if err != nil || key == "" {
		w.letters = append(w.letters, topic)
		return
	}
	if turn := w.give(key, sagas.Message{ID: id, Kind: sagas.KindEvent, Topic: topic, Body: body}); turn.Policy == sagas.DeadLetter {
		w.letters = append(w.letters, topic)
	}
}

// give gives an instance a message, as the engine does: once.
func (w *World) give(key string, m sagas.Message) sagas.Turn {
	if w.taken[key+" "+m.ID] {
		return sagas.Turn{Nothing: true, Policy: sagas.Ignore, Reason: "it was taken before"}
	}
	current, there := w.instances[key]
	if !there {
		current = sagas.Instance{Saga: w.saga.Name(), Key: key}
	}
	turn := w.saga.Decide(current, m, w.now)
	if turn.Nothing {
		return turn
	}
	w.taken[key+" "+m.ID] = true
	turn.Instance.Version = current.Version + 1
	w.instances[key] = turn.Instance
	what := m.Topic
	if what == "" {
		what = string(m.Kind)
	}
	w.history[key] = append(w.history[key], fmt.Sprintf("%s -> %s (%s)", what, turn.Instance.State, turn.Instance.Status))
	for _, out := range turn.Publish {
		w.publish(key, out)
	}
	w.tend(key)
	return turn
}

// publish sends what the saga publishes to its subscriber.
func (w *World) publish(key string, out sagas.Outgoing) {
	c := Command{ID: out.ID, Topic: out.Topic, Undoes: out.Undoes, Body: out.Body}
	w.issue(key, c)
	if handle := w.subscribers[out.Topic]; handle != nil {
		w.travel(0, func() { handle(c) })
	}
	if out.Tell {
		w.at(w.now, func() { w.give(key, sagas.Message{ID: out.ID + ".sent", Kind: sagas.KindSent, Work: out.ID}) })
	}
}

// tend has done what an instance waits for, when its time comes.
func (w *World) tend(key string) {
	i := w.instances[key]
	if i.Due != nil {
		w.at(later(*i.Due, w.now), func() {
			if now := w.instances[key]; now.Entry == i.Entry && now.Due != nil && !now.Due.After(w.now) {
				w.give(key, sagas.Message{ID: fmt.Sprintf("timeout.%d", i.Entry), Kind: sagas.KindTimeout, Entry: i.Entry})
			}
		})
	}
	if i.Work != nil && i.Work.Due != nil {
		w.at(later(*i.Work.Due, w.now), func() {
			if now := w.instances[key]; now.Version == i.Version {
				w.work(now)
			}
		})
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// work makes a call, or says that an undo was not confirmed.
func (w *World) work(i sagas.Instance) {
	m := sagas.Message{Kind: sagas.KindRepeat, Work: i.Work.ID}
	if i.Work.Target != "" {
		m.Kind, m.Body = w.call(i.Key, i.Work)
	}
	m.ID = fmt.Sprintf("%s.%s.%d", i.Work.ID, m.Kind, i.Version)
	w.at(w.now.Add(w.delay()), func() {
		w.give(i.Key, m)
	})
}

// call makes a call, of which request or answer may be lost.
func (w *World) call(key string, work *sagas.Work) (sagas.Kind, jsontext.Value) {
	c := Command{ID: work.ID, Target: work.Target, Method: work.Method, Body: work.Body}
	w.issue(key, c)
	failed := func(err error) (sagas.Kind, jsontext.Value) {
		body, _ := json.Marshal(sagas.Failure{Reason: err.Error()})
		return sagas.KindFailure, body
	}
	handle := w.servers[work.Target+" "+work.Method]
	if handle == nil {
		return failed(fmt.Errorf("nothing serves %s at %s", work.Method, work.Target))
	}
	if w.random.Float64() < w.chaos.Lose {
		return failed(errors.New("the request was lost"))
	}
	answer, err := handle(c)
	var refused *sagas.Refusal
	switch {
	case w.random.Float64() < w.chaos.Lose:
		return failed(errors.New("the answer was lost"))
	case errors.As(err, &refused):
		body, _ := json.Marshal(refused)
		return sagas.KindRefusal, body
	case err != nil:
		return failed(err)
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return failed(err)
	}
	return sagas.KindAnswer, body
}
