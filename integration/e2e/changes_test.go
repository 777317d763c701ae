package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
)

// A node that runs only the state service is killed under load three times, and its broker is away for a part of it. In
// the end every change that was made has its event, no event is of a change that was not made, and who follows a key has
// seen its changes in order.
func TestChangesAndEventsAreOne(t *testing.T) {
	t.Parallel()
	for engine, kind := range map[string]string{"sqlite": "rabbitmq", "mysql": "redis"} {
		t.Run(engine+" and "+kind, func(t *testing.T) { changesAndEventsAreOne(t, engine, kind) })
	}
}

func changesAndEventsAreOne(t *testing.T, engine, kind string) {
	t.Parallel() // most of it is waiting for what the killed nodes had claimed
	const phase = 400
	broker, named := ownBroker(t, kind)
	folder, address := t.TempDir(), freeAddress(t)
	file := filepath.Join(folder, "bannou.yaml")
	require.NoError(t, os.WriteFile(file, []byte("state:\n  stores:\n    scores: {backend: "+engine+", publishChanges: true}\n"), 0o600))
	args := append(append(quick(), named...), "--messaging-connection-retry-delay-ms", "100", "--data-dir", folder,
		"--services", "state", "--config", file)
	if engine == "mysql" {
		args = append(args, "--state-mysql-dsn", servers.MySQL(t).DSN)
	}
	arrived := listenTo(t, kind, named[len(named)-1], "state.changed")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := newWriters("http://"+address, seed)

	start := func() *node {
		n := launch(t, address, args...)
		n.waitReady(t)
		w.resolve(t)
		return n
	}
	n := start()
	w.write(t, phase, n.kill)
	n = start()
	w.write(t, phase, nil)
	require.NoError(t, broker.Kill())
	w.write(t, phase, n.kill)
	n = start() // a node whose changes wait is ready without its broker
	require.Contains(t, getText(t, n.url+"/readyz", http.StatusOK), `{"name":"bus","status":"degraded"`)
	w.write(t, phase, nil)
	require.NoError(t, broker.Restart(t.Context()))
	w.write(t, phase, n.kill)
	n = start()
	w.write(t, phase, nil)

	wanted := 0
	for _, log := range w.made {
		wanted += len(log)
	}
	seen, last := map[string]changeEvent{}, map[string]int{} // by event id; the place of its last arrival
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	arrivals := 0
	take := func(e changeEvent) {
		seen[e.EventID] = e
		last[e.EventID] = arrivals
		arrivals++
	}
	for len(seen) < wanted {
		select {
		case e := <-arrived:
			take(e)
		case <-ctx.Done():
			t.Fatalf("%d of %d events did not arrive", wanted-len(seen), wanted)
		}
	}
	require.Eventually(t, func() bool { return strings.Contains(getText(t, n.url+"/readyz", 0), `"outboxDepth":0`) }, patience, 20*time.Millisecond)
	require.Equal(t, 0, n.stop(t))
	for quiet := false; !quiet; { // all there is was confirmed
		select {
		case e := <-arrived:
			take(e)
		case <-time.After(2 * time.Second):
			quiet = true
		}
	}
	order := make([]string, arrivals)
	for id, at := range last {
		order[at] = id
	}
	got := map[string][]string{}
	for _, id := range order {
		if e := seen[id]; id != "" {
			got[e.Key] = append(got[e.Key], e.Operation+" "+e.ETag)
		}
	}
	require.Equal(t, w.made, got)
	t.Logf("%d changes, %d of them with an unknown outcome and then found made; %d refused by their condition; %d events, %d of them twice, 0 lost, 0 made up",
		wanted, w.found, w.conflicts.Load(), len(seen), arrivals-len(seen))
}

type changeEvent struct{ EventID, Key, Operation, ETag string }

// listenTo keeps an account of the events that arrive at a durable subscription, also after the broker was away.
func listenTo(t *testing.T, kind, url, topic string) <-chan changeEvent {
	t.Helper()
	var driver bus.Driver
	var err error
	if kind == "redis" {
		driver, err = redisbus.New(redisbus.Config{URLs: []string{url}})
	} else {
		driver, err = rabbitbus.New(rabbitbus.Config{URLs: []string{url}, RetryDelay: 100 * time.Millisecond})
	}
	require.NoError(t, err)
	b, err := bus.New(driver, bus.Config{AppID: "listener"})
	require.NoError(t, err)
	arrived := make(chan changeEvent, 100_000)
	_, err = b.SubscribeRaw(t.Context(), topic, func(_ context.Context, r *bus.Received) error {
		var e changeEvent
		if err := json.Unmarshal(r.Body, &e); err != nil {
			return bus.Permanent(err)
		}
		arrived <- e
		return nil
	}, bus.SubscriptionOptions{Group: "listener", Durable: true})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, b.Close(ctx))
		require.NoError(t, driver.Close(ctx))
	})
	return arrived
}

// writers change keys of their own, and know what became of each change.
type writers struct {
	base   string
	client *http.Client
	random []*rand.Rand

	made      map[string][]string // by key: the operations that were made, with their ETags
	unsure    [][]attempt         // of each writer
	found     int
	conflicts atomic.Int64
	number    atomic.Int64
}

// An attempt is a change whose answer did not come.
type attempt struct {
	key    string
	number int64 // that was saved; 0: it was a delete
	there  bool  // the key was, before
}

const writerCount, writerKeys = 8, 3

func newWriters(base string, seed uint64) *writers {
	w := &writers{base: base, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: writerCount}}, made: map[string][]string{}, unsure: make([][]attempt, writerCount)}
	for i := range writerCount {
		w.random = append(w.random, rand.New(rand.NewPCG(seed, uint64(i))))
	}
	return w
}

func (w *writers) post(path string, body, answer any) (status int, err error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	res, err := w.client.Post(w.base+"/state/"+path, "application/json", strings.NewReader(string(encoded)))
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return res.StatusCode, err
	}
	return res.StatusCode, json.Unmarshal(raw, answer)
}

// write makes so many changes. Then stop is called, under load, which goes on until it has done its work.
func (w *writers) write(t *testing.T, changes int, stop func()) {
	t.Helper()
	var count atomic.Int64
	var mu sync.Mutex // guards made
	enough, over := make(chan struct{}), make(chan struct{})
	var wait sync.WaitGroup
	failed := make(chan error, writerCount)
	for i := range writerCount {
		wait.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				log, unsure, err := w.change(i, &mu)
				if err != nil {
					failed <- err
					return
				}
				mu.Lock()
				for key, ops := range log {
					w.made[key] = append(w.made[key], ops...)
				}
				w.unsure[i] = unsure
				mu.Unlock()
				if unsure != nil {
					return
				}
				if count.Add(1) == int64(changes) {
					close(enough)
				}
			}
		})
	}
	select {
	case <-enough:
	case err := <-failed:
		close(over)
		t.Fatal(err)
	case <-time.After(time.Minute):
		close(over)
		t.Fatal("no changes are made any more")
	}
	if stop != nil {
		stop()
	}
	close(over)
	wait.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	if stop == nil {
		for i := range w.unsure {
			require.Empty(t, w.unsure[i], "a change was not answered, and nothing had happened")
		}
	}
}

// change makes one change of a key or two, and returns what was made, or what was tried and not answered.
func (w *writers) change(i int, mu *sync.Mutex) (log map[string][]string, unsure []attempt, err error) {
	random := w.random[i]
	key := fmt.Sprintf("w%d-%d", i, random.IntN(writerKeys))
	mu.Lock()
	before := w.made[key]
	mu.Unlock()
	there := len(before) > 0 && before[len(before)-1] != "delete "
	n := w.number.Add(1)
	var status int
	log = map[string][]string{}
	switch kind := random.IntN(10); {
	case kind < 2:
		unsure = []attempt{{key: key, there: there}}
		var answer struct{ Deleted bool }
		if status, err = w.post("delete", object{"storeName": "scores", "key": key}, &answer); answer.Deleted {
			log[key] = []string{"delete "}
		}
	case kind < 4:
		other := fmt.Sprintf("w%d-other", i)
		unsure = []attempt{{key: key, number: n}, {key: other, number: n}}
		var answer struct{ Results []struct{ Key, Etag string } }
		status, err = w.post("transact", object{"storeName": "scores", "operations": []object{
			{"operation": "save", "key": key, "value": n}, {"operation": "save", "key": other, "value": n}}}, &answer)
		for _, r := range answer.Results {
			log[r.Key] = []string{"save " + r.Etag}
		}
	case kind < 5: // on condition of an ETag that is none
		var answer object
		if status, err = w.post("save", object{"storeName": "scores", "key": key, "value": n, "options": object{"etag": "stale"}}, &answer); status == http.StatusConflict {
			w.conflicts.Add(1)
			return nil, nil, nil
		}
		unsure = []attempt{}
	default:
		unsure = []attempt{{key: key, number: n}}
		var answer struct{ Etag string }
		status, err = w.post("save", object{"storeName": "scores", "key": key, "value": n}, &answer)
		log[key] = []string{"save " + answer.Etag}
	}
	switch {
	case err == nil && status == http.StatusOK:
		return log, nil, nil
	case err != nil || status == http.StatusGatewayTimeout || status == http.StatusServiceUnavailable:
		return nil, unsure, nil //nolint:nilerr // it is found out later what became of it
	default:
		return nil, nil, fmt.Errorf("a change of %s was answered with %d", key, status)
	}
}

// resolve finds out what became of the changes that were not answered.
func (w *writers) resolve(t *testing.T) {
	t.Helper()
	for i, attempts := range w.unsure {
		for _, a := range attempts {
			var now struct {
				Value int64
				Etag  string
			}
			status, err := w.post("get", object{"storeName": "scores", "key": a.key}, &now)
			require.NoError(t, err)
			switch {
			case a.number == 0 && a.there && status == http.StatusNotFound:
				w.made[a.key] = append(w.made[a.key], "delete ")
				w.found++
			case a.number != 0 && status == http.StatusOK && now.Value == a.number:
				w.made[a.key] = append(w.made[a.key], "save "+now.Etag)
				w.found++
			}
		}
		w.unsure[i] = nil
	}
}
