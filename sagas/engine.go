package sagas

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// What requests and queries fail with.
var (
	// ErrUnknownSaga: the engine has no saga of that name.
	ErrUnknownSaga = errors.New("no saga has that name")
	// ErrNoInstance: the saga has no instance with that key.
	ErrNoInstance = errors.New("no instance has that key")
	// ErrNotNow: the instance is in no condition for what was asked.
	ErrNotNow = errors.New("the instance is in no condition for that")
	// ErrUnknownVersion: the instance began with a version of the definition that this program does not have.
	ErrUnknownVersion = errors.New("the version of the definition is unknown")
)

// Config describes an Engine.
type Config struct {
	// Store keeps the instances. Required.
	Store *eventstore.Store

	// Bus brings messages and takes commands. Required; it is run by its maker.
	Bus *bus.Bus

	// Caller makes calls. Required where a definition makes one; OverMesh is one.
	Caller Caller

	// Sagas are what it runs, several versions of one name among them.
	Sagas []*Saga

	// Partitions is how many processes can share publishing, calls and timeouts of one saga; messages are taken by all of them in any case. It is
	// the same in all processes, and cannot be changed later. Default: 1.
	Partitions int

	// Calls is how many calls of one partition are under way at most. Default: 64.
	Calls int

	// Lease is how long the work of a process that says nothing is left alone. Default: 15 s.
	Lease time.Duration

	// Poll is how often is looked for what is due, and for what other processes appended. Timeouts are late by so much. Default: 250 ms.
	Poll time.Duration

	// Postpone is how long a message waits at the broker when the store is away. Default: 1 s.
	Postpone time.Duration

	// Logger hears of instances that park, and of what fails. Default: none.
	Logger *slog.Logger

	// MeterProvider receives the metrics bannou.sagas.*. Default: none.
	MeterProvider metric.MeterProvider
}

func (c *Config) complete() error {
	if c.Store == nil || c.Bus == nil {
		return errors.New("sagas: an engine needs a Store and a Bus")
	}
	if c.Partitions < 0 || c.Partitions > 1024 || c.Calls < 0 || c.Lease < 0 || c.Poll < 0 || c.Postpone < 0 {
		return errors.New("sagas: the numbers of an engine are not negative, and it has 1024 partitions at most")
	}
	if c.Partitions == 0 {
		c.Partitions = 1
	}
	if c.Calls == 0 {
		c.Calls = 64
	}
	if c.Lease == 0 {
		c.Lease = 15 * time.Second
	}
	if c.Poll == 0 {
		c.Poll = 250 * time.Millisecond
	}
	if c.Postpone == 0 {
		c.Postpone = time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// An Engine runs sagas. It is safe for concurrent use.
type Engine struct {
	cfg      Config
	families map[string]*family
	names    []string
	metrics  *metrics
	behind   int64         // how many positions an instance lies back before it is written anew
	upgrade  time.Duration // how long an instance of a newer version waits for a program that has it
}

// upgrade is how long programs of an older version may go on beside those of a newer one before instances of the newer one park in them.
const upgrade = time.Hour

// A family is the versions of one saga.
type family struct {
	name     string
	versions map[int]*Saga
	newest   *Saga
	sources  map[string]source
	agenda   *agenda
}

func (f *family) category() string { return categoryPrefix + f.name }

// categoryPrefix begins the categories of instances' streams.
const categoryPrefix = "saga."

func (f *family) stream(key string) eventstore.StreamID {
	return eventstore.StreamID{Category: f.category(), ID: key}
}

// New makes an engine, and registers its handlers at the bus, which is to be run after that. Nothing else happens before Run; other calls need
// no Run.
func New(cfg Config) (*Engine, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, families: map[string]*family{}, behind: behind, upgrade: upgrade}
	for _, s := range cfg.Sagas {
		if err := e.add(s); err != nil {
			return nil, err
		}
	}
	var err error
	if e.metrics, err = newMetrics(cfg.MeterProvider, e); err != nil {
		return nil, fmt.Errorf("sagas: metrics: %w", err)
	}
	for _, name := range e.names {
		f := e.families[name]
		f.agenda = newAgenda(e, f)
		if err := e.listen(f); err != nil {
			return nil, errors.Join(err, e.metrics.close())
		}
	}
	return e, nil
}

// add enters a version of a saga.
func (e *Engine) add(s *Saga) error {
	f := e.families[s.name]
	if f == nil {
		f = &family{name: s.name, versions: map[int]*Saga{}, newest: s, sources: map[string]source{}}
		e.families[s.name] = f
		e.names = append(e.names, s.name)
		slices.Sort(e.names)
	}
	if f.versions[s.version] != nil {
		return fmt.Errorf("sagas: version %d of saga %q is there twice", s.version, s.name)
	}
	f.versions[s.version] = s
	if s.version > f.newest.version {
		f.newest = s
	}
	for topic, source := range s.sources {
		if err := e.cfg.Bus.CheckTopic(topic, false); err != nil {
			return fmt.Errorf("sagas: saga %q: %w", s.name, err)
		}
		if _, there := f.sources[topic]; !there || s == f.newest {
			f.sources[topic] = source
		}
	}
	for _, st := range s.states {
		for _, c := range []*command{&st.do, &st.undo} {
			if c.isCall() && e.cfg.Caller == nil {
				return fmt.Errorf("sagas: saga %q: state %q makes a call, and the engine has no Caller", s.name, st.name)
			}
			if c.topic != "" {
				if err := e.cfg.Bus.CheckTopic(c.topic, false); err != nil {
					return fmt.Errorf("sagas: saga %q: state %q: %w", s.name, st.name, err)
				}
			}
		}
	}
	return nil
}

// Run publishes, calls and keeps time until ctx ends. Several engines, in several processes, share the work. It works once.
func (e *Engine) Run(ctx context.Context) error {
	var relays []*eventstore.Subscription
	var errs []error
	for _, name := range e.names {
		relay, err := e.relay(e.families[name]) //nolint:contextcheck // it ends by Close, when what it publishes is confirmed
		if err != nil {
			errs = append(errs, err)
			break
		}
		relays = append(relays, relay)
	}
	var agendas sync.WaitGroup
	if len(errs) == 0 {
		for _, name := range e.names {
			agendas.Go(func() { e.families[name].agenda.run(ctx) })
		}
		<-ctx.Done()
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.Lease)
	defer cancel()
	for _, relay := range relays {
		errs = append(errs, relay.Close(closing))
	}
	agendas.Wait()
	return errors.Join(append(errs, e.metrics.close())...)
}

// load reads an instance as it is: its last event has all of it.
func (e *Engine) load(ctx context.Context, f *family, key string) (Instance, error) {
	for event, err := range e.cfg.Store.ReadStream(ctx, f.stream(key), eventstore.ReadOptions{Backward: true, Limit: 1}) {
		if err != nil {
			return Instance{}, err
		}
		r, err := recorded(&event)
		return r.Instance, err
	}
	return Instance{Saga: f.name, Key: key}, nil
}

// recorded is what an event says.
func recorded(event *eventstore.Recorded) (record, error) {
	var r record
	if err := json.Unmarshal(event.Data, &r); err != nil {
		return r, fmt.Errorf("%w: event %d of %s is none of a saga: %w", state.ErrCorrupt, event.Version, event.Stream, err)
	}
	r.Instance.Version, r.Instance.Position = event.Version, event.Position
	return r, nil
}

// deliver gives a message to an instance and enters what follows, in one append. That another message was faster is no failure: then it is
// decided anew.
func (e *Engine) deliver(ctx context.Context, f *family, key string, m Message) (Turn, error) {
	for {
		current, err := e.load(ctx, f, key)
		if err != nil {
			return Turn{}, err
		}
		turn, err := e.decide(ctx, f, current, m)
		if err != nil || turn.Nothing {
			e.metrics.policy(ctx, f.name, turn.Policy)
			return turn, err
		}
		appended, err := e.append(ctx, f, current, m, &turn)
		switch {
		case err == nil && appended.Repeated:
			return e.duplicate(ctx, f, current, m)
		case err == nil:
			e.entered(ctx, f, &current, &turn, &m)
			return turn, nil
		case errors.Is(err, state.ErrConflict):
			e.metrics.conflict(ctx, f.name)
		case errors.Is(err, state.ErrTooLarge):
			if m.Kind == kindPark {
				return Turn{}, err
			}
			return e.tooLarge(ctx, f, current, m)
		default:
			return Turn{}, err
		}
		if err := ctx.Err(); err != nil {
			return Turn{}, err
		}
	}
}

// decide is what follows from a message, by the instance's version of the definition.
func (e *Engine) decide(ctx context.Context, f *family, current Instance, m Message) (Turn, error) {
	saga := f.newest
	if current.Version > 0 && current.State != "" {
		saga = f.versions[current.Definition]
	}
	if saga == nil {
		switch m.Kind {
		case KindCancel, kindKept, kindPark: // for which no definition is asked
			saga = f.newest
		case KindRetry, KindCompensate:
			return Turn{}, fmt.Errorf("%w: instance %q of saga %q has version %d", ErrUnknownVersion, current.Key, f.name, current.Definition)
		case KindSent: // the relay must not wait: behind it are other instances
			if e.waits(f, &current) {
				return sentForAnother(current, m), nil
			}
			return unknownVersion(current, m), nil
		default:
			if e.waits(f, &current) {
				return Turn{}, fmt.Errorf("%w: instance %q of saga %q has version %d, and the newest here is %d; it waits for a program that has it",
					ErrUnknownVersion, current.Key, f.name, current.Definition, f.newest.version)
			}
			return unknownVersion(current, m), nil
		}
	}
	turn := saga.Decide(current, m, time.Now())
	if turn.Policy != "" && m.Kind == KindEvent {
		if was, err := e.taken(ctx, f, current.Key, m.ID); err != nil {
			return Turn{}, err
		} else if was {
			return e.duplicate(ctx, f, current, m)
		}
	}
	return turn, nil
}

// waits reports whether an instance is another program's to go on with: one of a newer version was begun by a program that is put in place of this
// one. That takes less than upgrade; where it was taken back instead, the instance parks in the end.
func (e *Engine) waits(f *family, i *Instance) bool {
	return i.Definition > f.newest.version && !i.Status.Ended() && i.Status != Parked && time.Since(i.Changed) < e.upgrade
}

// sentForAnother enters that the broker has an undo, for a program that knows the version: it is due there.
func sentForAnother(current Instance, m Message) Turn {
	if current.Status != Undoing || current.Work == nil || current.Work.ID != m.Work {
		return nothing(Ignore, "nothing waits for it")
	}
	w, now := *current.Work, time.Now().UTC().Truncate(time.Microsecond)
	w.Due = &now
	current.Work, current.Changed = &w, now
	return Turn{Instance: current}
}

// unknownVersion parks an instance that this program cannot go on with. Its messages wait in it.
func unknownVersion(current Instance, m Message) Turn {
	t := &turning{i: current, message: m, now: time.Now().UTC().Truncate(time.Microsecond)}
	if current.Status.Ended() {
		return nothing(Ignore, "the instance has ended")
	}
	t.i.Kept = slices.Clone(current.Kept)
	t.message.Entry = current.Entry
	waits := m.Kind == KindEvent || m.Kind == KindAnswer || m.Kind == KindRefusal || m.Kind == KindTimeout // others come again
	turn := Turn{}
	switch {
	case waits:
		turn = t.keep("its version is unknown")
	case current.Status == Parked:
		return nothing(Ignore, "the instance is parked")
	}
	if current.Status != Parked && !turn.Nothing {
		t.park(fmt.Sprintf("version %d of the definition is unknown", current.Definition), nil)
	}
	turn.Instance = t.i
	return turn
}

// taken reports whether an instance was given a message before.
func (e *Engine) taken(ctx context.Context, f *family, key, id string) (bool, error) {
	event := derived(f.name, key, "message", id)
	for recorded, err := range e.cfg.Store.ReadStream(ctx, f.stream(key), eventstore.ReadOptions{}) {
		if err != nil {
			return false, err
		}
		if recorded.ID == event {
			return true, nil
		}
	}
	return false, nil
}

// duplicate does what the policy for duplicates says. One that parks the instance is entered under an id of its own.
func (e *Engine) duplicate(ctx context.Context, f *family, current Instance, m Message) (Turn, error) {
	saga := f.versions[current.Definition]
	if saga == nil || m.Kind != KindEvent {
		return nothing(Ignore, "it was taken before"), nil
	}
	if saga.policies.Duplicate != Park {
		return nothing(saga.policies.Duplicate, "it was taken before"), nil
	}
	turn, err := e.deliver(ctx, f, current.Key, parking(current, "a message came twice: "+m.what()+" "+m.ID))
	turn.Nothing, turn.Policy = true, Park
	return turn, err
}

// tooLarge parks an instance that has no room for what follows from a message. An event becomes a dead letter: the instance cannot keep it.
func (e *Engine) tooLarge(ctx context.Context, f *family, current Instance, m Message) (Turn, error) {
	reason := fmt.Sprintf("what follows from %s is too large to be kept", m.what())
	turn, err := e.deliver(ctx, f, current.Key, parking(current, reason))
	if err == nil && m.Kind == KindEvent {
		turn.Nothing, turn.Policy, turn.Reason = true, DeadLetter, reason
		e.metrics.policy(ctx, f.name, turn.Policy)
	}
	return turn, err
}

// parking is a message that parks an instance.
func parking(i Instance, reason string) Message {
	return Message{ID: fmt.Sprintf("%s.%d", kindPark, i.Version), Kind: kindPark, Body: failing(reason)}
}

// append enters a turn.
func (e *Engine) append(ctx context.Context, f *family, current Instance, m Message, turn *Turn) (eventstore.Appended, error) {
	data, err := json.Marshal(record{Message: m, Instance: turn.Instance, Publish: turn.Publish})
	if err != nil {
		return eventstore.Appended{}, err
	}
	if len(data) > eventstore.MaxDataBytes {
		return eventstore.Appended{}, state.ErrTooLarge
	}
	appended, err := e.cfg.Store.Append(ctx, f.stream(current.Key), eventstore.Expected(current.Version), eventstore.Event{
		ID: derived(f.name, current.Key, "message", m.ID), Type: string(m.Kind), Data: data,
		Metadata: eventstore.Metadata{CorrelationID: short(turn.Instance.Correlation), CausationID: short(m.ID)},
	})
	turn.Instance.Version, turn.Instance.Position = appended.Version, appended.Position
	return appended, err
}

// short is what fits in metadata.
func short(id string) string {
	if len(id) > eventstore.MaxIDBytes {
		return ""
	}
	return id
}

// entered tells of a turn.
func (e *Engine) entered(ctx context.Context, f *family, before *Instance, turn *Turn, m *Message) {
	after := &turn.Instance
	e.metrics.turn(ctx, f.name, before, after)
	e.metrics.policy(ctx, f.name, turn.Policy)
	if after.Status == Parked && before.Status != Parked {
		e.cfg.Logger.WarnContext(ctx, "an instance of a saga is parked and waits for a person",
			"saga", f.name, "key", after.Key, "state", after.State, "reason", after.Parked.Reason)
	}
	if (after.Work != nil && after.Work.Due != nil) || m.Kind == KindCancel {
		f.agenda.wake()
	}
}
