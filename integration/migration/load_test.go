package migration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	callers  = 4
	accounts = 24
	// pace is what a caller waits between two calls.
	pace = 30 * time.Millisecond
	// mostTime bounds one call.
	mostTime = 30 * time.Second
)

// everyone are the services, callers before whom they call.
func everyone() []string { return []string{"orders", "payments", "stock", "ledger"} }

func account(n int) string { return fmt.Sprintf("account-%d", n) }

func allAccounts() []string {
	all := make([]string, accounts)
	for n := range all {
		all[n] = account(n)
	}
	return all
}

// A call is one that the load has made.
type call struct {
	order        int64 // 0: it was a read
	account      string
	begun, ended time.Time
	failure      string // empty: it was answered as asked
}

// A load is steady callers, what they have called, and the instances that they call: of each service the one that is in front.
type load struct {
	seed  uint64
	ended chan struct{} // closed when the callers have ended

	mu    sync.Mutex
	front map[string]*instance
	order int64
	calls []call
	acked map[string][]int64 // orders by account
	stale []string           // reads without an order that had been acknowledged before
	kills []time.Time
}

func newLoad() *load {
	return &load{seed: rand.Uint64(), ended: make(chan struct{}), front: map[string]*instance{}, acked: map[string][]int64{}}
}

// put puts an instance in front, and returns the one that was there before.
func (l *load) put(i *instance) (before *instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, l.front[i.service] = l.front[i.service], i
	return before
}

// take is the instance in front, with one more call in flight.
func (l *load) take(service string) *instance {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.front[service]
	i.inFlight.Add(1)
	return i
}

// run calls until the context ends, and returns when the calls under way have ended.
func (l *load) run(ctx context.Context) {
	defer close(l.ended)
	var wait sync.WaitGroup
	for n := range callers {
		wait.Go(func() {
			chance := rand.New(rand.NewPCG(l.seed, uint64(n)))
			ticker := time.NewTicker(pace)
			defer ticker.Stop()
			for ctx.Err() == nil {
				l.place(account(chance.IntN(accounts)))
				if chance.IntN(3) == 0 {
					l.look(everyone()[chance.IntN(4)], account(chance.IntN(accounts)))
				}
				select {
				case <-ticker.C:
				case <-ctx.Done():
				}
			}
		})
	}
	wait.Wait()
}

// place places one order.
func (l *load) place(account string) {
	l.mu.Lock()
	l.order++
	c := call{order: l.order, account: account, begun: time.Now()}
	l.mu.Unlock()
	err := l.post("orders", "change", change{Key: account, Order: c.order}, new(struct{}))
	l.note(c, err)
}

// look reads the record of an account, and notes acknowledged orders that are not in it.
func (l *load) look(service, account string) {
	l.mu.Lock()
	c := call{account: account, begun: time.Now()}
	before := slices.Clone(l.acked[account])
	l.mu.Unlock()
	found, err := l.read(service, []string{account})
	l.note(c, err)
	if err != nil {
		return
	}
	if lost := missing(found[0], before); len(lost) > 0 {
		l.mu.Lock()
		l.stale = append(l.stale, fmt.Sprintf("%s of %s: %v", account, service, lost))
		l.mu.Unlock()
	}
}

func (l *load) note(c call, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.ended = time.Now()
	if err != nil {
		c.failure = err.Error()
	} else if c.order != 0 {
		l.acked[c.account] = append(l.acked[c.account], c.order)
	}
	l.calls = append(l.calls, c)
}

func (l *load) read(service string, names []string) ([]record, error) {
	var found records
	err := l.post(service, "read", keys{Keys: names}, &found)
	if err == nil && len(found.Records) != len(names) {
		err = fmt.Errorf("%s read %d of %d records", service, len(found.Records), len(names))
	}
	return found.Records, err
}

// post calls the instance of a service that is in front.
func (l *load) post(service, method string, request, response any) error {
	i := l.take(service)
	defer i.inFlight.Done()
	ctx, cancel := context.WithTimeout(context.Background(), mostTime)
	defer cancel()
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, i.url+"/"+service+"/"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusNoContent {
		return fmt.Errorf("%s answered %s: %.600s", service, answer.Status, text)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil
	}
	return json.Unmarshal(text, response)
}

// missing are the orders that are not in a record.
func missing(r record, orders []int64) (lost []int64) {
	there := map[int64]bool{}
	for _, o := range r.Orders {
		there[o] = true
	}
	for _, o := range orders {
		if !there[o] {
			lost = append(lost, o)
		}
	}
	return lost
}

// open makes the records, while nobody else changes them.
func (l *load) open(t *testing.T) {
	t.Helper()
	for _, service := range everyone() {
		names := allAccounts()
		if handler := hears(service); handler != "" {
			for _, name := range allAccounts() {
				names = append(names, handler+"-"+name)
			}
		}
		require.NoError(t, l.post(service, "open", keys{Keys: names}, new(struct{})))
	}
}

// acknowledged is what has been acknowledged by now.
func (l *load) acknowledged() map[string][]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := map[string][]int64{}
	for a, orders := range l.acked {
		now[a] = slices.Clone(orders)
	}
	return now
}

// A balance is what records say of the orders that had been acknowledged.
type balance struct {
	lostWrites []string // of orders in the records of those who were called
	lostEvents []string // of orders in the records of those who hear of them
	handled    int      // orders that were heard of
	again      int64    // events that came to a handler again
}

// settled compares the records with what had been acknowledged before, and waits for events that are on their way.
func (l *load) settled(t *testing.T) (b balance) {
	t.Helper()
	before := l.acknowledged()
	deadline := time.Now().Add(patience)
	for {
		b = l.compare(t, before)
		if len(b.lostEvents) == 0 || time.Now().After(deadline) {
			return b
		}
		select {
		case <-t.Context().Done():
			return b
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (l *load) compare(t *testing.T, acked map[string][]int64) (b balance) {
	t.Helper()
	for _, service := range everyone() {
		prefixes := []string{""}
		if handler := hears(service); handler != "" {
			prefixes = append(prefixes, handler+"-")
		}
		for _, prefix := range prefixes {
			names := allAccounts()
			for n := range names {
				names[n] = prefix + names[n]
			}
			found, err := l.read(service, names)
			require.NoError(t, err)
			for n, r := range found {
				lost := missing(r, acked[account(n)])
				switch {
				case prefix != "":
					b.handled += len(r.Orders)
					b.again += r.Again
				}
				if len(lost) == 0 {
					continue
				}
				line := fmt.Sprintf("%s of %s: %v", names[n], service, lost)
				if prefix == "" {
					b.lostWrites = append(b.lostWrites, line)
				} else {
					b.lostEvents = append(b.lostEvents, line)
				}
			}
		}
	}
	return b
}

// untrue are orders in records that nobody has placed, or that are there twice.
func (l *load) untrue(t *testing.T) (lines []string) {
	t.Helper()
	for _, service := range everyone() {
		found, err := l.read(service, allAccounts())
		require.NoError(t, err)
		for n, r := range found {
			seen := map[int64]bool{}
			for _, o := range r.Orders {
				if seen[o] || o < 1 || o > l.order {
					lines = append(lines, fmt.Sprintf("order %d of %s at %s", o, account(n), service))
				}
				seen[o] = true
			}
		}
	}
	return lines
}

// killed notes that processes are killed now.
func (l *load) killed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kills = append(l.kills, time.Now())
}

// failures are the failed calls from one on: those that were under way when a process was killed, and the others.
func (l *load) failures(from int) (excused, others []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.calls[from:] {
		if c.failure == "" {
			continue
		}
		underWay := slices.ContainsFunc(l.kills, func(at time.Time) bool { return !c.begun.After(at) && !c.ended.Before(at) })
		line := fmt.Sprintf("order %d of %s, %s to %s: %s", c.order, c.account, c.begun.Format(time.StampMilli), c.ended.Format(time.StampMilli),
			strings.Join(strings.Fields(c.failure), " "))
		if underWay {
			excused = append(excused, line)
		} else {
			others = append(others, line)
		}
	}
	return excused, others
}
