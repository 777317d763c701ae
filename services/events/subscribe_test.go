package events_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/services/events"
)

// a reader of /events/subscribe.
type reader struct {
	t     testing.TB
	lines *bufio.Scanner
	close func()
	last  string // id of the event that was read last
}

// follow begins to read, and returns when the service has begun to answer.
func (n *node) follow(body string, headers ...string) *reader {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	response := n.send(ctx, "/events/subscribe", body, headers...)
	require.Equal(n.t, 200, response.StatusCode)
	require.Equal(n.t, "text/event-stream", response.Header.Get("Content-Type"))
	r := &reader{t: n.t, lines: bufio.NewScanner(response.Body), close: func() { cancel(); _ = response.Body.Close() }}
	n.t.Cleanup(r.close)
	require.Equal(n.t, ": following", r.line())
	return r
}

// line is the next one that is not empty, or "" at the end.
func (r *reader) line() string {
	for r.lines.Scan() {
		if r.lines.Text() != "" {
			return r.lines.Text()
		}
	}
	return ""
}

// next is the id, type and data of the next event.
func (r *reader) next() string {
	r.t.Helper()
	id, name, data := r.line(), r.line(), r.line()
	var e struct{ Data json.RawMessage }
	require.NoError(r.t, json.Unmarshal([]byte(strings.TrimPrefix(data, "data: ")), &e), "%s %s %s", id, name, data)
	r.last = strings.TrimPrefix(id, "id: ")
	at, _, _ := strings.Cut(r.last, "/")
	return at + " " + strings.TrimPrefix(name, "event: ") + " " + string(e.Data)
}

func (n *node) append(category, id string, data int) {
	n.t.Helper()
	n.must("/events/append", fmt.Sprintf(`{"streams":[{"category":%q,"id":%q,"events":[{"type":"x","data":%d}]}]}`, category, id, data))
}

// A reader gets what there is, then what comes; one that comes back goes on behind what it has.
func TestSubscribe(t *testing.T) {
	n := start(t, events.Config{})
	n.append("account", "a", 1)
	n.append("other", "a", 2)
	all, category, stream, live := n.follow(`{"from":0}`), n.follow(`{"category":"account","from":1}`), n.follow(`{"category":"other","id":"a","from":1}`), n.follow(`{}`)
	require.Equal(t, "1 x 1", all.next())
	require.Equal(t, "2 x 2", all.next())
	n.append("account", "a", 3)
	n.append("other", "a", 4)
	require.Equal(t, "3 x 3", all.next())
	require.Equal(t, "4 x 4", all.next())
	require.Equal(t, "1 x 1", category.next())
	require.Equal(t, "3 x 3", category.next())
	require.Equal(t, "1 x 2", stream.next())
	require.Equal(t, "2 x 4", stream.next())
	require.Equal(t, "3 x 3", live.next())
	all.close()
	back := n.follow(`{"from":1}`, "Last-Event-ID", "3")
	require.Equal(t, "4 x 4", back.next())

	wrong := n.send(t.Context(), "/events/subscribe", `{}`, "Last-Event-ID", "x")
	require.Equal(t, 400, wrong.StatusCode)
	require.NoError(t, wrong.Body.Close())
}

// A reader that comes back to a log that was set back, and has other events where it was or none, is told so, and not passed over them. One whose event is there goes on.
func TestSubscribeTellsThatTheLogWasSetBack(t *testing.T) {
	n := start(t, events.Config{})
	n.append("account", "a", 1)
	n.append("other", "a", 2)
	n.append("account", "a", 3)
	bodies := []string{`{"from":1}`, `{"category":"account","from":1}`, `{"category":"account","id":"a","from":1}`}
	var had []string
	for i, body := range bodies {
		r := n.follow(body)
		for range []int{3, 2, 2}[i] {
			r.next()
		}
		had = append(had, r.last)
		r.close()
	}
	n.append("account", "a", 4)
	for i, body := range bodies {
		number, _, _ := strings.Cut(had[i], "/")
		for _, last := range []string{had[i], number} {
			require.Contains(t, n.follow(body, "Last-Event-ID", last).next(), " x 4")
		}
	}

	refused := func(n *node, body, last string) {
		t.Helper()
		response := n.send(t.Context(), "/events/subscribe", body, "Last-Event-ID", last)
		defer func() { require.NoError(t, response.Body.Close()) }()
		require.Equal(t, 409, response.StatusCode, "%s %s", body, last)
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.Contains(t, string(text), "set back")
	}
	shorter := start(t, events.Config{})
	shorter.append("account", "a", 1)
	for i, body := range bodies {
		number, _, _ := strings.Cut(had[i], "/")
		refused(shorter, body, had[i])
		refused(shorter, body, number)
	}
	other := start(t, events.Config{})
	for range 4 {
		other.append("account", "a", 5)
	}
	for i, body := range bodies {
		refused(other, body, had[i])
	}
}

// A stream without events says that it lives, and ends when the node stops.
func TestSubscribeKeepsAliveAndDrains(t *testing.T) {
	n := start(t, events.Config{Heartbeat: time.Millisecond})
	r := n.follow(`{}`)
	require.Equal(t, ": still here", r.line())
	n.drain()
	for line := r.line(); line != ": the node is stopping"; line = r.line() {
		require.Equal(t, ": still here", line)
	}
	require.Empty(t, r.line())
	n.stop()
}

// Readers are bounded in number: one more is told to come again.
func TestReadersAreBounded(t *testing.T) {
	n := start(t, events.Config{MaxFollowers: 1})
	first := n.follow(`{}`)
	n.refused("/events/subscribe", `{}`, 503, "unavailable")
	first.close()
	n.eventuallyFollowed()
}

// A reader that does not read is given up.
func TestSlowReadersAreGivenUp(t *testing.T) {
	log := memoryevents.New(eventstore.Config{})
	large := jsontext.Value(`"` + strings.Repeat("x", eventstore.MaxDataBytes-2) + `"`)
	for range 64 { // more than the sockets in between hold
		_, err := log.Append(t.Context(), eventstore.StreamID{Category: "a", ID: "a"}, eventstore.Any, eventstore.Event{Type: "x", Data: large})
		require.NoError(t, err)
	}
	n := start(t, events.Config{Log: log, MaxFollowers: 1, WriteTimeout: time.Second})
	n.follow(`{"from":1}`)
	n.eventuallyFollowed()
}

// eventuallyFollowed waits until there is a place for one more reader.
func (n *node) eventuallyFollowed() {
	n.t.Helper()
	require.Eventually(n.t, func() bool {
		ctx, cancel := context.WithCancel(n.t.Context())
		defer cancel()
		response, err := n.ask(ctx, "/events/subscribe", `{}`)
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	}, patience, 20*time.Millisecond, "the reader keeps its place")
}

// A reader on another node hears of an append by the bus: here the other log looks by itself only once an hour.
func TestHintsBetweenNodes(t *testing.T) {
	driver := memorybus.New(memorybus.Config{})
	defer func() { require.NoError(t, driver.Close(context.Background())) }()
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close(context.Background())) }()

	hint := func(id string) *events.Hints {
		return events.NewHints(events.HintsConfig{Bus: b, Log: "events", InstanceID: id})
	}
	first, second := hint("one"), hint("two")
	appending := memoryevents.New(eventstore.Config{OnAppend: first.Appended})
	hearing := memoryevents.New(eventstore.Config{})
	start(t, events.Config{Log: appending, Hints: first})
	start(t, events.Config{Log: hearing, Hints: second})

	heard := hearing.News()
	require.Eventually(t, func() bool { // the other node listens soon
		_, err := appending.Append(t.Context(), eventstore.StreamID{Category: "a", ID: "a"}, eventstore.Any, eventstore.Event{Type: "x", Data: jsontext.Value("1")})
		select {
		case <-heard:
			return err == nil
		default:
			return false
		}
	}, patience, 10*time.Millisecond)
}

// What cannot be followed is refused at once: a reader that is told to come again would come again for ever.
func TestSubscribeRefusesAtOnce(t *testing.T) {
	n := start(t, events.Config{})
	n.append("account", "a", 1)
	for _, c := range []struct{ body, last, says string }{
		{`{"category":"No category","from":0}`, "", "category"},
		{`{"category":"No category"}`, "", "category"},
		{`{"category":"No category"}`, "1", "category"},
		{`{"category":"account","id":"` + strings.Repeat("a", 300) + `","from":0}`, "", "255 bytes"},
		{`{}`, "9223372036854775807", "Last-Event-ID"}, // there is none behind it
	} {
		ctx, cancel := context.WithCancel(t.Context())
		response := n.send(ctx, "/events/subscribe", c.body, "Last-Event-ID", c.last)
		require.Equal(t, 400, response.StatusCode, "%+v", c)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.Contains(t, string(body), c.says)
		require.NoError(t, response.Body.Close())
		cancel()
	}
}
