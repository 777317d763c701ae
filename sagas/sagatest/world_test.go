package sagatest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/sagas"
	"github.com/bannou-mesh/bannou/sagas/sagatest"
)

// A trip is a saga of three steps: a seat by events, a room by calls, and a car by events again.
type trip struct {
	ID   string
	Seat string
	Room string
}

type about struct {
	events.Base
	Trip string `json:"trip"`
	Text string `json:"text,omitzero"`
}

func (*about) EventName() string { return "About" }

type room struct {
	Number string `json:"number"`
}

func topic(name string) sagas.Topic[about] {
	return sagas.Correlated(name, func(e *about) string { return e.Trip })
}

func says(t *trip) bus.Event { return &about{Trip: t.ID} }

func definition() sagas.Definition[trip] {
	return sagas.Definition[trip]{
		Name: "trip", Policies: sagas.Policies{Unknown: sagas.Park}, Retry: sagas.Retry{Attempts: 6, Pause: time.Second, Timeout: 5 * time.Second},
		Start: []sagas.On[trip]{sagas.When(topic("trip.asked"), "seat", func(t *trip, e *about) error { t.ID = e.Trip; return nil })},
		States: []sagas.State[trip]{
			{
				Name: "seat", Do: sagas.Publish("seat.book", says), Undo: sagas.Publish("seat.free", says).Until(topic("seat.freed")),
				On: []sagas.On[trip]{
					sagas.When(topic("seat.booked"), "room", func(t *trip, e *about) error { t.Seat = e.Text; return nil }),
					sagas.When[trip](topic("seat.refused"), sagas.Compensating, nil),
					sagas.After[trip](time.Minute, sagas.Compensating, nil),
				},
			},
			{
				Name: "room", Do: sagas.Call("hotel", "book", func(t *trip) any { return t }), Undo: sagas.Call("hotel", "free", func(t *trip) any { return t }),
				On: []sagas.On[trip]{
					sagas.Answered("car", func(t *trip, r *room) error { t.Room = r.Number; return nil }),
					sagas.Refused[trip](sagas.Compensating, nil),
					sagas.Failed[trip](sagas.Compensating, nil),
				},
			},
			{
				Name: "car", Do: sagas.Publish("car.book", says), Undo: sagas.Publish("car.free", says),
				On: []sagas.On[trip]{
					sagas.Choose(topic("car.answered"), func(_ *trip, e *about) (string, error) {
						if e.Text == "yes" {
							return "done", nil
						}
						return sagas.Compensating, nil
					}, "done", sagas.Compensating),
					sagas.After[trip](time.Minute, sagas.Compensating, nil),
				},
			},
			{Name: "done", End: true, Do: sagas.Publish("trip.booked", says)},
		},
	}
}

// services do once what they are asked to, and write it down.
type services struct {
	done   map[string]string // what by id of the command
	undone map[string]bool   // ids of commands whose undo came
	order  []string          // "do seat", "undo seat", the first time
	refuse string            // the step that is refused
	fails  bool              // undoing a room fails always
}

func attach(w *sagatest.World, refuse string) *services {
	s := &services{done: map[string]string{}, undone: map[string]bool{}, refuse: refuse}
	once := func(c sagatest.Command, what string) (first bool) {
		if s.done[c.ID] != "" {
			return false
		}
		s.done[c.ID] = what
		s.order = append(s.order, what)
		return true
	}
	reply := func(c sagatest.Command, topic, text string) {
		var e about
		if err := c.Decode(&e); err != nil {
			panic(err)
		}
		w.Send(topic, &about{Base: events.Base{EventID: c.ID + topic}, Trip: e.Trip, Text: text})
	}
	w.Subscribe("seat.book", func(c sagatest.Command) {
		if s.refuse == "seat" {
			reply(c, "seat.refused", "")
			return
		}
		once(c, "do seat")
		reply(c, "seat.booked", "12a")
	})
	w.Subscribe("seat.free", func(c sagatest.Command) { once(c, "undo seat"); reply(c, "seat.freed", "") })
	w.Subscribe("car.book", func(c sagatest.Command) {
		if s.refuse == "car" {
			reply(c, "car.answered", "no")
			return
		}
		once(c, "do car")
		reply(c, "car.answered", "yes")
	})
	w.Subscribe("car.free", func(c sagatest.Command) { once(c, "undo car") })
	w.Subscribe("trip.booked", func(c sagatest.Command) { once(c, "booked") })
	w.Serve("hotel", "book", func(c sagatest.Command) (any, error) {
		if s.refuse == "room" {
			return nil, &sagas.Refusal{Status: 409, Detail: "full"}
		}
		once(c, "do room")
		return room{Number: "7"}, nil
	})
	w.Serve("hotel", "free", func(c sagatest.Command) (any, error) {
		if s.fails {
			return nil, errors.New("no answer")
		}
		once(c, "undo room")
		return struct{}{}, nil
	})
	return s
}

func build(t require.TestingT) *sagas.Saga {
	saga, err := definition().Build()
	require.NoError(t, err)
	return saga
}

func TestCompletes(t *testing.T) {
	w := sagatest.New(build(t), sagatest.Chaos{})
	s := attach(w, "")
	w.Send("trip.asked", &about{Trip: "t-1"})
	w.Run()
	require.Equal(t, sagas.Completed, w.Instance("t-1").Status)
	require.JSONEq(t, `{"ID":"t-1","Seat":"12a","Room":"7"}`, string(w.Instance("t-1").Data))
	require.Equal(t, []string{"do seat", "do room", "do car", "booked"}, s.order)
}

// What was begun is undone in reverse order, what was refused included: the saga cannot know that nothing came of it.
func TestCompensates(t *testing.T) {
	for refuse, want := range map[string][]string{
		"seat": {"undo seat"},
		"room": {"do seat", "undo room", "undo seat"},
		"car":  {"do seat", "do room", "undo car", "undo room", "undo seat"},
	} {
		t.Run(refuse, func(t *testing.T) {
			w := sagatest.New(build(t), sagatest.Chaos{})
			s := attach(w, refuse)
			w.Send("trip.asked", &about{Trip: "t-1"})
			w.Run()
			require.Equal(t, sagas.Compensated, w.Instance("t-1").Status, w.History("t-1"))
			require.Equal(t, want, s.order)
		})
	}
}

func TestTimeout(t *testing.T) {
	w := sagatest.New(build(t), sagatest.Chaos{})
	w.Subscribe("seat.free", func(sagatest.Command) { w.Send("seat.freed", &about{Trip: "t-1"}) })
	began := w.Now()
	w.Send("trip.asked", &about{Trip: "t-1"})
	w.Run()
	require.Equal(t, []string{"trip.asked -> seat (running)", "timeout -> seat (compensating)", "seat.freed -> seat (compensated)"}, w.History("t-1"))
	require.GreaterOrEqual(t, w.Now().Sub(began), time.Minute)
}

// An undo that nobody confirms is repeated, and the instance parks; who retries has it undone.
func TestUndoIsRepeatedAndParks(t *testing.T) {
	w := sagatest.New(build(t), sagatest.Chaos{})
	s := attach(w, "room")
	asked := 0
	w.Subscribe("seat.free", func(sagatest.Command) { asked++ })
	w.Send("trip.asked", &about{Trip: "t-1"})
	w.Run()
	require.Equal(t, 6, asked)
	i := w.Instance("t-1")
	require.Equal(t, sagas.Parked, i.Status)
	require.Contains(t, i.Parked.Reason, "no seat.freed came")
	require.Equal(t, []string{"do seat", "undo room"}, s.order)

	w.Subscribe("seat.free", func(sagatest.Command) { w.Send("seat.freed", &about{Trip: "t-1"}) })
	w.Ask("t-1", sagas.KindRetry, sagas.Request{})
	w.Run()
	require.Equal(t, sagas.Compensated, w.Instance("t-1").Status)
}

// What confirms an undo that was given up already ends the instance: nobody need retry it.
func TestLateConfirmation(t *testing.T) {
	w := sagatest.New(build(t), sagatest.Chaos{})
	attach(w, "room")
	w.Subscribe("seat.free", func(sagatest.Command) {})
	w.Send("trip.asked", &about{Trip: "t-1"})
	w.Run()
	require.Equal(t, sagas.Parked, w.Instance("t-1").Status)
	w.Send("seat.freed", &about{Trip: "t-1"})
	w.Run()
	require.Equal(t, sagas.Compensated, w.Instance("t-1").Status)
}

// An answer that comes before its question waits: it is reordered, and nothing else.
func TestEarlyMessagesWait(t *testing.T) {
	w := sagatest.New(build(t), sagatest.Chaos{})
	attach(w, "")
	w.Send("car.answered", &about{Trip: "t-1", Text: "yes"})
	w.Run()
	require.Equal(t, sagas.Parked, w.Instance("t-1").Status, "unknown instances are parked by this definition")
	w.Send("trip.asked", &about{Trip: "t-1"})
	w.Run()
	require.Equal(t, sagas.Completed, w.Instance("t-1").Status, w.History("t-1"))

	w.Subscribe("car.book", func(sagatest.Command) {})
	w.Send("trip.asked", &about{Trip: "t-2"})
	w.Step()
	w.Send("car.answered", &about{Trip: "t-2", Text: "yes"})
	w.Run()
	require.Equal(t, sagas.Completed, w.Instance("t-2").Status, w.History("t-2"))
}

// Whatever is lost, doubled, late or overtaken: every instance ends or is parked, what is undone is undone in reverse order of what was begun, and each
// step once.
func TestRandomSchedules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		chaos := sagatest.Chaos{
			Seed: rapid.Uint64().Draw(t, "seed"), Delay: time.Duration(rapid.IntRange(0, 90).Draw(t, "delay")) * time.Second,
			Double: rapid.Float64Range(0, 0.5).Draw(t, "double"), Lose: rapid.Float64Range(0, 0.5).Draw(t, "lose"),
		}
		w := sagatest.New(build(t), chaos)
		s := attach(w, rapid.SampledFrom([]string{"", "seat", "room", "car"}).Draw(t, "refuse"))
		s.fails = rapid.IntRange(0, 5).Draw(t, "fails") == 0
		const key = "t-1"
		for range 3 { // one of them arrives, most likely
			w.Send("trip.asked", &about{Trip: key})
		}
		if ask := rapid.IntRange(0, 20).Draw(t, "ask"); ask > 0 {
			for range ask {
				w.Step()
			}
			w.Ask(key, rapid.SampledFrom([]sagas.Kind{sagas.KindCompensate, sagas.KindRetry, sagas.KindCancel}).Draw(t, "what"), sagas.Request{})
		}
		w.Run()
		i := w.Instance(key)
		if i.Version == 0 {
			return // its start was lost each time
		}
		check(t, w, s, i)
		for n := 0; i.Status == sagas.Parked; n++ {
			if i.State == "" {
				return // parked without its start
			}
			if n > 3 {
				s.fails = false
			}
			require.LessOrEqual(t, n, 200, "it does not come to an end: %v", w.History(key)[:min(40, len(w.History(key)))])
			w.Ask(key, sagas.KindRetry, sagas.Request{})
			w.Run()
			i = w.Instance(key)
			check(t, w, s, i)
		}
	})
}

func check(t *rapid.T, w *sagatest.World, s *services, i sagas.Instance) {
	what := fmt.Sprintf("%s\n%s", s.order, strings.Join(w.History(i.Key), "\n"))
	if !i.Status.Ended() && i.Status != sagas.Parked {
		t.Fatalf("an instance is left %s:\n%s", i.Status, what)
	}
	var did, undid []string
	for _, line := range w.History(i.Key) {
		_, after, _ := strings.Cut(line, " -> ")
		if state, _, _ := strings.Cut(after, " "); state != "" && state != "done" && !slices.Contains(did, state) {
			did = append(did, state)
		}
	}
	for _, c := range w.Issued(i.Key) {
		if step, is := map[string]string{"seat.free": "seat", "free": "room", "car.free": "car"}[c.Topic+c.Method]; is {
			undid = append(undid, step)
		}
	}
	if last := len(did) - len(undid); last < 0 || !slices.Equal(reversed(did[last:]), undid) {
		t.Fatalf("%v was done, and %v undone:\n%s", did, undid, what)
	}
	if counted := map[string]int{}; true {
		for _, o := range s.order {
			if counted[o]++; counted[o] > 1 {
				t.Fatalf("%s happened twice:\n%s", o, what)
			}
		}
	}
	if i.Status == sagas.Compensated {
		if len(i.Owed) > 0 || len(undid) != len(did) {
			t.Fatalf("compensated, and %v is owed:\n%s", i.Owed, what)
		}
	}
	if i.Status == sagas.Completed && len(did) != 3 {
		t.Fatalf("completed without all steps:\n%s", what)
	}
}

func reversed(list []string) []string {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}
