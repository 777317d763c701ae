package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
)

const (
	workers = 8 // half of them publish, half save
	// limit bounds a request: what hangs counts as refused.
	limit = 10 * time.Second
	// pause is a worker's after each request. It bounds the load: the machine is to be busy with containers that come back.
	pause = 10 * time.Millisecond
	// store is one that lasts, on MySQL.
	store = "accounts"
)

type object = map[string]any

// A load publishes events to a durable callback and saves values, and knows what became of each.
type load struct {
	stack  *stack
	topic  string
	events *faults.Ledger

	mu       sync.Mutex
	attempts int
	kept     map[string]int // values whose saves were answered, by their keys
	refused  int            // saves that were not
	failures atomic.Int64   // requests of either kind without a good answer
	turn     atomic.Int64
	stop     func()
}

// startLoad subscribes and begins.
func startLoad(t *testing.T, s *stack) *load {
	t.Helper()
	l := &load{stack: s, topic: "compose.killed-" + strconv.FormatInt(time.Now().UnixNano(), 36), kept: map[string]int{}}
	l.events = faults.NewLedger(1, limit)
	callback := l.receive(t)
	require.Eventually(t, func() bool {
		code, _ := l.post(t.Context(), "messaging", "messaging/subscribe",
			object{"topic": l.topic, "callbackUrl": callback, "options": object{"durable": true, "prefetchCount": 50}})
		return code == http.StatusOK
	}, patience, 100*time.Millisecond)

	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for w := range workers {
		work := l.publish
		if w%2 == 1 {
			work = l.save
		}
		running.Go(func() {
			for ctx.Err() == nil {
				work(ctx)
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		})
	}
	l.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(l.stop)
	return l
}

// receive is the program that is called back; the URL is how containers reach it.
func (l *load) receive(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("BANNOU_TEST_HOST"), "0"))
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var event struct {
			Number *int `json:"number"`
		}
		if err := json.NewDecoder(r.Body).Decode(&event); err != nil || event.Number == nil {
			http.Error(w, "this is no event of the load", http.StatusBadRequest)
			return
		}
		l.events.Handled(0, *event.Number)
	}))
	_ = server.Listener.Close() // the one on loopback, which no container reaches
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// publish is one event. It runs to its end also when ctx ends: nobody knows of half an event.
func (l *load) publish(ctx context.Context) {
	n, ok := l.events.Begin(ctx, faults.Properties{})
	if !ok {
		return
	}
	code, answer := l.post(context.WithoutCancel(ctx), "messaging", "messaging/publish", object{"topic": l.topic, "payload": object{"number": n}})
	var err error
	if code != http.StatusOK || answer["success"] != true {
		err = fmt.Errorf("answered %d with %v", code, answer)
	}
	l.events.Published(n, err, 0)
	l.attempted(err == nil, nil)
}

// save is one value, under a key of its own.
func (l *load) save(ctx context.Context) {
	n := int(l.turn.Add(1))
	key := l.topic + "." + strconv.Itoa(n)
	code, _ := l.post(context.WithoutCancel(ctx), "state", "state/save", object{"storeName": store, "key": key, "value": n})
	l.attempted(code == http.StatusOK, func() { l.kept[key] = n })
}

// attempted enters how a request ended. Then is done with the lock held for one that ended well.
func (l *load) attempted(good bool, then func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempts++
	switch {
	case !good:
		l.failures.Add(1)
		if then != nil {
			l.refused++
		}
	case then != nil:
		then()
	}
}

// done is how much ended well so far: events that were acknowledged and handled, and values whose saves were answered.
func (l *load) done() (events, saves int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events.Settled(), len(l.kept)
}

// ended is how many requests ended so far, well or not.
func (l *load) ended() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.attempts
}

// goesOn waits until so many more events and half as many more saves ended well.
func (l *load) goesOn(t *testing.T, more int) {
	t.Helper()
	events, saves := l.done()
	require.Eventually(t, func() bool {
		e, s := l.done()
		return e >= events+more && s >= saves+more/2
	}, patience, 20*time.Millisecond, "the load goes on")
}

// post calls a method of a service, at one node after another, as a balancer before them would; an answer that is none has code 0.
func (l *load) post(ctx context.Context, service, method string, body object) (code int, answer object) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	base := l.stack.bases[int(l.turn.Add(1))%len(l.stack.bases)]
	if l.stack.shape == "split" {
		method = "v1.0/invoke/" + service + "/method/" + method
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return 0, nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/"+method, bytes.NewReader(encoded))
	if err != nil {
		return 0, nil
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Bannou-Token", l.stack.token)
	res, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = res.Body.Close() }() // read as far as it goes
	raw, err := io.ReadAll(res.Body)
	if err != nil || json.Unmarshal(raw, &answer) != nil {
		return 0, nil
	}
	return res.StatusCode, answer
}

// lost counts the values whose saves were answered and that are not there.
func (l *load) lost(t *testing.T) int {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := 0
	var keys []string
	ask := func() {
		var items []any
		require.Eventually(t, func() bool {
			code, answer := l.post(t.Context(), "state", "state/bulk-get", object{"storeName": store, "keys": keys})
			items, _ = answer["items"].([]any)
			return code == http.StatusOK && len(items) == len(keys)
		}, patience, 100*time.Millisecond)
		for i, item := range items {
			if item, _ := item.(object); item["found"] != true || item["value"] != float64(l.kept[keys[i]]) {
				lost++
			}
		}
		keys = nil
	}
	for key := range l.kept {
		if keys = append(keys, key); len(keys) == 100 {
			ask()
		}
	}
	if len(keys) > 0 {
		ask()
	}
	return lost
}
