package sagas_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	trips "github.com/bannou-mesh/bannou/integration/sagas"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/sagas"
)

// A path is a way through a saga of the suite. Each kill is of a new subject, which the path prepares while all is well.
type path struct {
	name, saga    string
	services      []string // that are killed
	quick         point    // of services[0], in the short form; none: the path is of the long one
	confirmWithin time.Duration
	accepts       bool // players take the seats that they are offered

	prepare func(w *suiteWorld) subject
}

// A subject is what one kill is about.
type subject interface {
	// begin asks once for what begins the saga. done: it was answered, and is not asked for again.
	begin(ctx context.Context) (done bool)
	// over reports that the saga has ended.
	over(ctx context.Context) bool
	// check counts what is not as it should be.
	check(t *testing.T, r *trips.SuiteRow)
}

// operations are those of a service that it can be killed at.
func operations(service string) []string {
	if service == "sagas" {
		return []string{"append", "publish", "call", "acknowledge"}
	}
	return []string{"append", "save", "publish", "answer", "acknowledge"}
}

// TestServicesKilledAtEveryStep kills one service after another at everything that it does in a saga of the suite. Each instance ends, and what it is
// about is whole or gone.
func TestServicesKilledAtEveryStep(t *testing.T) {
	var mu sync.Mutex
	t.Run("paths", func(t *testing.T) {
		for _, p := range paths() {
			if p.quick == (point{}) && !*long {
				continue
			}
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				w := newSuiteWorld(t, p)
				for _, service := range p.services {
					row := w.killAll(service)
					require.GreaterOrEqual(t, row.Kills, leastKills(), "%s, %s: it was not killed where it is known to come", p.name, service)
					mu.Lock()
					suiteRows = append(suiteRows, row)
					mu.Unlock()
					if !*long {
						break
					}
				}
			})
		}
	})
	require.NotEmpty(t, suiteRows)
	slices.SortStableFunc(suiteRows, func(a, b trips.SuiteRow) int { return standing(a) - standing(b) })
	for _, r := range suiteRows {
		require.False(t, r.Failed(), "%s", r)
	}
}

// leastKills is how often each service is killed in each path at least. In the long form no run has had fewer than ten.
func leastKills() int {
	if *long {
		return 8
	}
	return 1
}

// standing is where a row stands.
func standing(r trips.SuiteRow) int {
	return slices.IndexFunc(paths(), func(p path) bool { return p.name == r.Saga })
}

// A suiteWorld is a place with the services of the suite, one of them for itself, and a look at all.
type suiteWorld struct {
	t      *testing.T
	path   path
	place  place
	suite  *suite
	engine *sagas.Engine // it looks, and does not run
	peers  peers

	victim *process
	at     point // where the victim will be killed; none: it was told to already

	mu   sync.Mutex
	told map[string][]string // by topic and what an event is about: ids, each once
}

func newSuiteWorld(t *testing.T, p path) *suiteWorld {
	w := &suiteWorld{t: t, path: p, told: map[string][]string{}}
	w.place = place{DSN: servers.MySQL(t).DSN, Rabbit: servers.RabbitMQ(t).URL, Redis: servers.Redis(t).URL, ConfirmWithin: p.confirmWithin}
	var err error
	w.suite, err = newSuite(w.place, nil)
	require.NoError(t, err)
	all, err := suiteSagas(p.confirmWithin)
	require.NoError(t, err)
	driver, err := rabbitbus.New(rabbitbus.Config{URLs: []string{w.place.Rabbit}})
	require.NoError(t, err)
	idle, err := bus.New(driver, bus.Config{}) // of an engine that takes nothing
	require.NoError(t, err)
	w.engine, err = sagas.New(sagas.Config{Store: w.suite.log, Bus: idle, Caller: peers{}, Sagas: all})
	require.NoError(t, err)
	hear(w, events.TopicAccountRegistered, func(e *events.AccountRegisteredEvent) (string, string) { return e.AccountID, e.EventID })
	hear(w, events.TopicGameSessionPlayerJoined, func(e *events.GameSessionPlayerJoinedEvent) (string, string) { return e.SessionID, e.EventID })
	hear(w, events.TopicGameSessionJoinEnded, func(e *events.GameSessionJoinEndedEvent) (string, string) { return e.JoinID, e.EventID })
	hear(w, events.TopicPermissionsSessionStateChanged, func(e *events.SessionStateChangeEvent) (string, string) { return e.SessionID, e.EventID })
	require.NoError(t, bus.Handle(w.suite.bus, events.TopicGameSessionInvited, "player", func(ctx context.Context, e *events.GameSessionInvitedEvent) error {
		if !p.accepts {
			return nil
		}
		return w.peers.post(ctx, "game-session", "game-session/answer-join", map[string]any{"joinId": e.JoinID, "accept": true}, new(struct{}), "")
	}, bus.SubscriptionOptions{}))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- w.suite.bus.Run(ctx) }()
	<-w.suite.bus.Running()
	awaitQueues(w.t.Context(), w.suite.bus)
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ran)
		require.NoError(t, driver.Close(context.Background()))
		require.NoError(t, w.suite.factory.Close())
	})
	return w
}

func hear[E any](w *suiteWorld, topic string, of func(e *E) (about, id string)) {
	require.NoError(w.t, bus.Handle(w.suite.bus, topic, "chronicle", func(_ context.Context, e *E) error {
		about, id := of(e)
		w.mu.Lock()
		defer w.mu.Unlock()
		if ids := w.told[topic+" "+about]; !slices.Contains(ids, id) {
			w.told[topic+" "+about] = append(ids, id)
		}
		return nil
	}, bus.SubscriptionOptions{}))
}

// ids are those under which something was told, of which there is at least one in the end where one is expected.
func (w *suiteWorld) ids(topic, about string, expected bool) int {
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.told[topic+" "+about])
	}
	if expected {
		require.Eventually(w.t, func() bool { return count() > 0 }, patience, 5*time.Millisecond, "nobody was told %s of %s", topic, about)
	}
	return count()
}

// killAll kills a service at each point.
func (w *suiteWorld) killAll(service string) trips.SuiteRow {
	row, begun := trips.SuiteRow{Saga: w.path.name, Service: service}, time.Now()
	w.place.Addresses = map[string]string{}
	rest, own := freeAddress(w.t), freeAddress(w.t)
	for _, s := range suiteServices() {
		w.place.Addresses[s] = rest
	}
	w.place.Addresses[service] = own
	w.peers = peers{place: w.place, http: &http.Client{Timeout: 5 * time.Second}}
	others := w.place
	others.Services = without(service)
	living := startAs(w.t, servicesDescribed, others)
	defer living.kill()
	w.start(service, point{})
	defer func() { w.victim.kill() }()
	if !*long {
		w.kill(service, w.path.quick, &row)
	} else {
		for _, operation := range operations(service) {
			for _, after := range []bool{false, true} {
				for n := 1; w.kill(service, point{Operation: operation, N: n, After: after}, &row); n++ {
				}
			}
		}
	}
	w.count(&row, begun)
	return row
}

// start starts the service anew, which will be killed at a point.
func (w *suiteWorld) start(service string, p point) {
	own := w.place
	own.Services, own.Point, w.at = []string{service}, p, p
	w.victim = startAs(w.t, servicesDescribed, own)
}

// kill kills the service at a point in the life of a new subject. False: there is no such point in it.
func (w *suiteWorld) kill(service string, p point, row *trips.SuiteRow) (killed bool) {
	t := w.t
	if w.at != p {
		w.victim.kill()
		w.start(service, p)
	}
	subject := w.path.prepare(w)
	_, err := fmt.Fprintln(w.victim.orders, "arm")
	require.NoError(t, err)
	require.Equal(t, "armed", w.victim.line(t))
	w.at = point{}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	begun := make(chan int, 1)
	go func() {
		tries := 0
		for ctx.Err() == nil {
			tries++
			if subject.begin(ctx) {
				break
			}
			pause(ctx, 50*time.Millisecond)
		}
		begun <- tries
	}()
	over := func() bool { return len(begun) > 0 && subject.over(ctx) }
	for !killed && (!*long || !over()) { // in the short form each point is known to come
		select {
		case <-w.victim.ended:
			killed = true
			w.victim.ended <- nil // for who kills it
		case <-time.After(10 * time.Millisecond):
		}
		require.NoError(t, ctx.Err(), "%s, %s at %+v: it neither ends nor is the service killed", w.path.name, service, p)
	}
	if !killed { // what it does behind that
		select {
		case <-w.victim.ended:
			killed = true
			w.victim.ended <- nil
		case <-time.After(500 * time.Millisecond):
		}
	}
	if !killed {
		w.victim.kill() // it would be killed by being looked at
		w.start(service, point{})
		subject.check(t, row)
		return false
	}
	at := time.Now()
	next := p
	next.N++
	w.start(service, next)
	for !over() {
		pause(ctx, 10*time.Millisecond)
		require.NoError(t, ctx.Err(), "%s, %s killed at %+v: it does not end", w.path.name, service, p)
	}
	row.Kills++
	row.Slowest = max(row.Slowest, time.Since(at))
	if <-begun > 1 {
		row.Untouched++
	}
	before := *row
	subject.check(t, row)
	if row.Half > before.Half || row.Twice > before.Twice {
		t.Logf("%s, %s killed at %+v: %+v", w.path.name, service, p, *row)
	}
	return true
}

// count enters what has become of the instances.
func (w *suiteWorld) count(row *trips.SuiteRow, since time.Time) {
	filter := sagas.Filter{Saga: w.path.saga, Limit: sagas.MaxList}
	for {
		list, err := w.engine.List(w.t.Context(), filter)
		require.NoError(w.t, err)
		for _, i := range list.Instances {
			switch {
			case i.Started.Before(since):
			case i.Status == sagas.Completed:
				row.Completed++
			case i.Status == sagas.Compensated:
				row.Compensated++
			case i.Status == sagas.Parked:
				row.Parked++
			default:
				row.Open++
			}
		}
		if filter.Before = list.Cursor; filter.Before == 0 {
			return
		}
	}
}

// ended reports whether an instance has ended, or waits for a person.
func (w *suiteWorld) ended(ctx context.Context, saga, key string) bool {
	i, err := w.engine.Get(ctx, saga, key)
	return err == nil && (i.Status.Ended() || i.Status == sagas.Parked)
}

// post asks a service, once, as a player or a program does.
func (w *suiteWorld) post(ctx context.Context, path string, body, answer any) int {
	return w.ask(ctx, w.peers, path, body, answer)
}

// look asks a service, once, in a way at which it is not killed.
func (w *suiteWorld) look(ctx context.Context, path string, body, answer any) int {
	looking := w.peers
	looking.looks = true
	return w.ask(ctx, looking, path, body, answer)
}

func (w *suiteWorld) ask(ctx context.Context, peers peers, path string, body, answer any) int {
	service := map[byte]string{'u': "auth", 'c': "accounts", 'e': "permissions", 'a': "game-session"}[path[1]]
	err := peers.post(ctx, service, path, body, answer, "")
	var r *refusal
	switch {
	case err == nil:
		return http.StatusOK
	case errors.As(err, &r):
		return r.Status
	default:
		return 0
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}
