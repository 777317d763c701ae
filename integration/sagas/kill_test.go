package sagas_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	trips "github.com/bannou-mesh/bannou/integration/sagas"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/sagas"
)

// occurrences are how often each operation is done in the life of an instance, by whether it is compensated.
func occurrences(full bool) map[string]int {
	if full {
		return map[string]int{"append": 7, "publish": 4, "call": 2, "acknowledge": 4}
	}
	return map[string]int{"append": 4, "publish": 3, "call": 1, "acknowledge": 3}
}

// points are those that a process is killed at, in the order of the page. A quick run has a few of each operation.
func points(full bool) (all []point) {
	for _, operation := range []string{"append", "publish", "call", "acknowledge"} {
		for _, after := range []bool{false, true} {
			for n := 1; n <= occurrences(full)[operation]; n++ {
				if *long || full && n == occurrences(full)[operation] && (after || operation != "call") {
					all = append(all, point{Operation: operation, N: n, After: after})
				}
			}
		}
	}
	return all
}

// patience is how long anything may take that has to happen in the end.
const patience = time.Minute

// TestKilledAtEveryStep kills the process of a saga at every operation, one after another. Instances end as if nothing had been.
func TestKilledAtEveryStep(t *testing.T) {
	rabbit, mysql := servers.NewRabbitMQ(t, servers.RabbitOptions{}), servers.NewMySQL(t, servers.MySQLOptions{})
	var mu sync.Mutex
	t.Run("paths", func(t *testing.T) {
		for _, full := range []bool{false, true} {
			if len(points(full)) == 0 {
				continue
			}
			t.Run(fmt.Sprintf("compensated=%t", full), func(t *testing.T) {
				t.Parallel()
				o := order{DSN: mysql.DSN, Table: fmt.Sprintf("sagas_%t", full), Rabbit: rabbit.URL, Prefix: fmt.Sprintf("full-%t.", full)}
				w := newWorld(t, o)
				for _, r := range w.killAll(t, full) {
					mu.Lock()
					rows = append(rows, r)
					mu.Unlock()
				}
			})
		}
	})
	for _, r := range rows {
		require.False(t, r.Failed(), "%s", r)
	}
	require.NotEmpty(t, rows)
	slices.SortStableFunc(rows, func(a, b trips.Row) int {
		switch {
		case a.Compensated == b.Compensated:
			return 0
		case a.Compensated:
			return 1
		default:
			return -1
		}
	})
}

// A world is the services that the saga talks to, and a look at its instances.
type world struct {
	order  order
	bus    *bus.Bus
	engine *sagas.Engine // it looks, and does not run

	mu       sync.Mutex
	done     map[string]map[string][]string // by instance and what was done: the ids, without repetition
	sequence map[string][]string            // by instance: what was done, the first time
	repeated map[string]int
}

func newWorld(t *testing.T, o order) *world {
	w := &world{done: map[string]map[string][]string{}, sequence: map[string][]string{}, repeated: map[string]int{}}
	driver, err := rabbitbus.New(rabbitbus.Config{URLs: []string{o.Rabbit}})
	require.NoError(t, err)
	w.bus, err = bus.New(driver, bus.Config{})
	require.NoError(t, err)
	for asked, answer := range map[string]string{"seat.book": "seat.booked", "seat.free": "seat.freed", "car.book": "car.booked", "car.free": "", "trip.booked": ""} {
		require.NoError(t, bus.Handle(w.bus, o.Prefix+asked, "service", func(ctx context.Context, e *trips.Ask) error {
			w.did(e.Trip, asked, e.EventID)
			topic := answer
			if asked == "car.book" && e.Full {
				topic = "car.refused"
			}
			if topic == "" {
				return nil
			}
			_, err := w.bus.Publish(ctx, o.Prefix+topic, &trips.Ask{Base: events.Base{EventID: e.EventID[:len(e.EventID)-4] + "0000"}, Trip: e.Trip})
			return err
		}, bus.SubscriptionOptions{}))
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var trip trips.Trip
		if err := json.Unmarshal(body, &trip); err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		w.did(trip.ID, "room."+strings.TrimPrefix(r.URL.Path, "/"), r.Header.Get("Idempotency-Key"))
		_, _ = io.WriteString(rw, "{}")
	}))
	o.Hotel = server.URL
	w.order = o
	log, closeLog, err := openLog(o)
	require.NoError(t, err)
	saga, err := trips.Definition(o.Prefix).Build()
	require.NoError(t, err)
	idle, err := bus.New(driver, bus.Config{}) // of an engine that takes nothing
	require.NoError(t, err)
	w.engine, err = sagas.New(sagas.Config{Store: log, Bus: idle, Caller: hotel{}, Sagas: []*sagas.Saga{saga}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- w.bus.Run(ctx) }()
	<-w.bus.Running()
	awaitQueues(t.Context(), w.bus)
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ran)
		require.NoError(t, driver.Close(context.Background()))
		server.Close()
		require.NoError(t, closeLog())
	})
	return w
}

// did notes what a service was asked to do.
func (w *world) did(trip, what, id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done[trip] == nil {
		w.done[trip] = map[string][]string{}
	}
	switch ids := w.done[trip][what]; {
	case slices.Contains(ids, id):
		w.repeated[trip]++
	default:
		w.done[trip][what] = append(ids, id)
		w.sequence[trip] = append(w.sequence[trip], what)
	}
}

// killAll kills a process at each point, and says by operation what became of its instances.
func (w *world) killAll(t *testing.T, full bool) []trips.Row {
	type killed struct {
		point point
		key   string
		at    time.Time
	}
	var all []killed
	begin := func(o order) {
		_, err := w.bus.Publish(t.Context(), w.order.Prefix+"trip.asked", &trips.Ask{Trip: o.Key, Full: full})
		require.NoError(t, err)
	}
	ends := map[string]time.Time{}
	for n, p := range points(full) {
		o := w.order
		o.Point, o.Key = p, fmt.Sprintf("trip-%03d", n)
		process := startProcess(t, o)
		begin(o)
		select {
		case <-process.ended:
		case <-time.After(patience):
			process.kill()
			t.Fatalf("the process was not killed at %+v: that does not happen in the life of an instance", p)
		}
		all = append(all, killed{p, o.Key, time.Now()})
	}
	last := w.order
	last.Key = "nobody"
	process := startProcess(t, last)
	defer process.kill()
	for _, k := range all {
		require.Eventually(t, func() bool {
			i, err := w.engine.Get(t.Context(), "trip", k.key)
			if err == nil && (i.Status.Ended() || i.Status == sagas.Parked) {
				ends[k.key] = i.Changed
				return true
			}
			return false
		}, patience, 20*time.Millisecond, "instance %s, killed at %+v, does not end", k.key, k.point)
	}
	require.Eventually(t, func() bool { // what was published last is handled
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, k := range all {
			if len(w.sequence[k.key]) < len(expected(full)) {
				return false
			}
		}
		return true
	}, patience, 20*time.Millisecond, "some steps were not done")
	var found []trips.Row
	for _, k := range all {
		when := "before "
		if k.point.After {
			when = "after "
		}
		name := when + map[string]string{"append": "an append", "publish": "publishing", "call": "a call", "acknowledge": "acknowledging"}[k.point.Operation]
		i := slices.IndexFunc(found, func(r trips.Row) bool { return r.Killed == name })
		if i < 0 {
			i = len(found)
			found = append(found, trips.Row{Killed: name, Compensated: full})
		}
		w.count(t, &found[i], k.key, full)
		found[i].Slowest = max(found[i].Slowest, ends[k.key].Sub(k.at))
	}
	return found
}

// expected is what is done in the life of an instance, undoing in the order in which it has to be.
func expected(full bool) []string {
	if full {
		return []string{"seat.book", "room.book", "car.book", "car.free", "room.free", "seat.free"}
	}
	return []string{"seat.book", "room.book", "car.book", "trip.booked"}
}

// count enters one instance.
func (w *world) count(t *testing.T, r *trips.Row, key string, full bool) {
	i, err := w.engine.Get(t.Context(), "trip", key)
	require.NoError(t, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	r.Kills++
	switch want := map[bool]sagas.Status{false: sagas.Completed, true: sagas.Compensated}[full]; i.Status {
	case want:
		r.Ended++
	case sagas.Parked:
		r.Parked++
	default:
		r.Open++
	}
	for _, ids := range w.done[key] {
		r.Twice += len(ids) - 1
	}
	r.Repeated += w.repeated[key]
	var confirmed []string // the undo of the car is confirmed by nobody, so that it may come late
	for _, what := range w.sequence[key] {
		if what != "car.free" {
			confirmed = append(confirmed, what)
		}
	}
	for _, what := range expected(full) {
		if len(w.done[key][what]) == 0 {
			r.Missing++
		}
	}
	if want := slices.DeleteFunc(expected(full), func(what string) bool { return what == "car.free" }); !slices.Equal(confirmed, want) {
		r.Disordered++
		t.Logf("%s: %v", key, w.sequence[key])
	}
}
