package messaging_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/messaging"
)

// counting is a program whose callback counts its calls, all of which succeed.
func counting(t *testing.T) (url string, calls *atomic.Int64) {
	calls = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		calls.Add(1)
	}))
	t.Cleanup(server.Close)
	return server.URL, calls
}

// One callback hangs; the others get all that is published meanwhile.
func TestASlowCallbackDelaysNoOther(t *testing.T) {
	const others, prefetch = 20, 5
	events := int64(1000)
	if testing.Short() {
		events = 200
	}
	b := newBroker(t)
	n := b.start(t, func(c *messaging.Config) { c.CallbackTimeout = 5 * time.Minute }) // however slow the machine
	hanging, release := new(atomic.Int64), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		hanging.Add(1)
		<-release
	}))
	t.Cleanup(func() {
		close(release)
		slow.Close()
	})
	n.must("/messaging/subscribe", fmt.Sprintf(`{"topic":"a.b","callbackUrl":%q,"options":{"prefetchCount":%d}}`, slow.URL, prefetch))
	counts := make([]*atomic.Int64, others)
	for i := range counts {
		var url string
		url, counts[i] = counting(t)
		n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`"}`)
	}
	for i := range events {
		_, err := b.bus.PublishRaw(t.Context(), "a.b", fmt.Appendf(nil, `{"n":%d}`, i), bus.PublishOptions{})
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		for _, c := range counts {
			if c.Load() < events {
				return false
			}
		}
		return true
	}, 60*time.Second, 5*time.Millisecond)
	for _, c := range counts {
		require.Equal(t, events, c.Load(), "each event once")
	}
	require.EqualValues(t, prefetch, hanging.Load(), "the slow one still has what it can work on at a time, and no more")
}

// A callback is called for at most prefetchCount events at a time.
func TestPrefetchCountBoundsTheCallsAtATime(t *testing.T) {
	const prefetch, events = 3, 30
	b := newBroker(t)
	n := b.start(t)
	url, calls := callback(t)
	n.must("/messaging/subscribe", fmt.Sprintf(`{"topic":"a.b","callbackUrl":%q,"options":{"prefetchCount":%d}}`, url, prefetch))
	for range events {
		n.must("/messaging/publish", `{"topic":"a.b","payload":{}}`)
	}
	var waiting []call
	for answered := 0; answered < events; answered++ {
		for len(waiting) < min(prefetch, events-answered) {
			waiting = append(waiting, next(t, calls))
		}
		require.Empty(t, calls, "more calls at a time than asked for")
		waiting[0].answer <- 200
		waiting = waiting[1:]
	}
}

// Events with one partition key reach the callback one after another, in order; those with others do not wait for them.
func TestCallbacksKeepTheOrderOfAPartitionKey(t *testing.T) {
	const keys, events = 5, 200
	b := newBroker(t)
	n := b.start(t)
	var mu sync.Mutex
	got := map[int][]int{}
	atWork := map[int]bool{}
	var together sync.WaitGroup // the first events of all keys
	together.Add(keys)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body object // encoding/json's first look at a struct, by two at once, is a race to the detector
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
			return
		}
		var e struct{ Key, N int }
		e.Key, e.N = whole(body, "key"), whole(body, "n")
		mu.Lock()
		if atWork[e.Key] {
			t.Errorf("two events of key %d at a time", e.Key)
		}
		atWork[e.Key] = true
		mu.Unlock()
		if e.N < keys {
			together.Done()
			together.Wait() // for ever, if a key waited for another
		}
		mu.Lock()
		got[e.Key] = append(got[e.Key], e.N)
		atWork[e.Key] = false
		mu.Unlock()
	}))
	defer server.Close()
	n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+server.URL+`"}`)
	want := map[int][]int{}
	for i := range events {
		key := i % keys
		want[key] = append(want[key], i)
		_, err := b.bus.PublishRaw(t.Context(), "a.b", fmt.Appendf(nil, `{"key":%d,"n":%d}`, key, i),
			bus.PublishOptions{PartitionKey: fmt.Sprint(key)})
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		done := 0
		for _, of := range got {
			done += len(of)
		}
		return done >= events
	}, 20*time.Second, time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, want, got)
}

// A callback that is at work when its subscription is removed finishes; what it did counts, and it is not called again.
func TestUnsubscribeLetsACallAtWorkFinish(t *testing.T) {
	for _, options := range []string{`{"prefetchCount":1}`, `{"prefetchCount":1,"durable":true}`} {
		t.Run(options, func(t *testing.T) {
			b := newBroker(t)
			n := b.start(t)
			url, calls := callback(t)
			id := n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":`+options+`}`)["subscriptionId"].(string)
			for range 3 {
				n.must("/messaging/publish", `{"topic":"a.b","payload":{}}`)
			}
			atWork := next(t, calls)
			type outcome struct {
				status int
				err    error
			}
			removed := make(chan outcome, 1)
			go func() {
				response, err := n.client.Post(n.url+"/messaging/unsubscribe", "application/json", strings.NewReader(`{"subscriptionId":"`+id+`"}`))
				if err != nil {
					removed <- outcome{err: err}
					return
				}
				removed <- outcome{response.StatusCode, response.Body.Close()}
			}()
			require.Eventually(t, func() bool { // the removal has begun: nobody is listed any more
				topics, err := b.bus.Topics(t.Context())
				if err != nil {
					return false
				}
				for _, info := range topics {
					if info.Name == "a.b" && info.ConsumerCount > 0 {
						return false
					}
				}
				return true
			}, 20*time.Second, time.Millisecond)
			atWork.answer <- 200
			require.Equal(t, outcome{status: 200}, <-removed)
			require.Empty(t, calls, "it was called after it was removed")
			topics, err := b.bus.Topics(t.Context())
			require.NoError(t, err)
			for _, info := range topics {
				require.NotEqual(t, "a.b", info.Name)
				require.Zero(t, info.MessageCount, "a removed subscription leaves no dead letter: %s", info.Name)
			}
		})
	}
}

// whole is a member that is a whole number, or -1.
func whole(body object, name string) int {
	if f, ok := body[name].(float64); ok {
		return int(f)
	}
	return -1
}

// A callback that asks for patience gets it, with seconds or a date: its event comes again no earlier, is not counted as
// failing, and holds up no other.
func TestCallbackAsksForAPause(t *testing.T) {
	const pauses = 3 // the bus gives up after two redeliveries
	b := newBroker(t)
	n := b.start(t)
	type seen struct {
		n       int
		at, due time.Time
	}
	calls := make(chan seen, 100)
	refused := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body object
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
			return
		}
		s := seen{n: whole(body, "n"), at: time.Now()}
		if s.n == 1 && refused < pauses {
			refused++
			if s.due = s.at.Add(time.Second); refused == 2 {
				s.due = s.due.Add(time.Second).Truncate(time.Second)
				w.Header().Set("Retry-After", s.due.UTC().Format(http.TimeFormat))
				w.WriteHeader(http.StatusServiceUnavailable)
			} else {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(http.StatusTooManyRequests)
			}
		}
		calls <- s
	}))
	t.Cleanup(server.Close)
	wait := func() seen {
		t.Helper()
		select {
		case s := <-calls:
			return s
		case <-time.After(10 * time.Second):
			t.Fatal("the callback was not called")
			return seen{}
		}
	}
	n.must("/messaging/subscribe", fmt.Sprintf(`{"topic":"a.b","callbackUrl":%q,"options":{"prefetchCount":1}}`, server.URL))
	n.must("/messaging/publish", `{"topic":"a.b","payload":{"n":1}}`)
	last := wait()
	n.must("/messaging/publish", `{"topic":"a.b","payload":{"n":2}}`)
	require.Equal(t, 2, wait().n, "the next one is not held up")
	for range pauses {
		again := wait()
		require.Equal(t, 1, again.n)
		require.False(t, again.at.Before(last.due), "%s before it was asked for", last.due.Sub(again.at))
		last = again
	}
	require.Zero(t, last.due, "it was taken in the end")
	require.EqualValues(t, 0, n.must("/messaging/dead-letters/list", `{}`)["total"])
}
