package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

const (
	// callers is how many goroutines call, one call at a time each.
	callers = 16
	// betweenCalls is a caller's pause after each call: the load is to show faults, not to fill the cores.
	betweenCalls = 4 * time.Millisecond
	// patientDeadline is that of calls that have time for everything a client does about a fault.
	patientDeadline = 5 * time.Second
	// AttemptTimeout is what the caller gives an attempt, so that an instance which is silent leaves time for others.
	AttemptTimeout = time.Second
)

// A MeshLoad calls services by way of one client.
type MeshLoad struct {
	Client    *mesh.Client
	Directory *mesh.Directory // the client's
	Targets   []string        // services and app-ids, all of which answer /task
	Ledger    *MeshLedger
	Seed      uint64

	resting atomic.Bool
	stalls  stalls
}

// Rest has the callers make no new calls until it is called with false.
func (l *MeshLoad) Rest(resting bool) { l.resting.Store(resting) }

// Call calls from several goroutines, and returns when ctx has ended and the last call has come back. Some deadlines are milliseconds.
func (l *MeshLoad) Call(ctx context.Context) {
	defer l.stalls.watch(ctx)()
	var all sync.WaitGroup
	for n := range callers {
		random := rand.New(rand.NewPCG(l.Seed, uint64(n))) //nolint:gosec // a schedule to be repeated
		all.Go(func() {
			for ctx.Err() == nil {
				if !l.resting.Load() {
					l.One(ctx, l.draw(random))
				}
				_ = Pause(ctx, betweenCalls) // the loop looks at ctx itself
			}
		})
	}
	all.Wait()
}

// draw chooses the next call.
func (l *MeshLoad) draw(random *rand.Rand) Call {
	c := Call{Target: l.Targets[random.IntN(len(l.Targets))], Kind: Reads, Deadline: patientDeadline}
	switch random.IntN(10) {
	case 0, 1:
		c.Kind = Once
	case 2, 3:
		c.Kind = Keyed
	}
	if random.IntN(20) == 0 {
		c.Deadline = time.Duration(10+random.IntN(40)) * time.Millisecond
	}
	return c
}

// One makes one call and enters it. The end of ctx does not end it.
func (l *MeshLoad) One(ctx context.Context, c Call) Outcome {
	c.Number = l.Ledger.Begin()
	o := Outcome{Call: c, Before: l.Directory.Mappings()}
	var attempts atomic.Int64
	bounded, cancel := context.WithTimeout(context.WithValue(context.WithoutCancel(ctx), attemptsKey{}, &attempts), c.Deadline)
	defer cancel()
	begun := time.Now()
	o.Answer, o.Err = l.call(bounded, c)
	o.Overdue = l.stalls.overdue(begun.Add(c.Deadline), time.Now())
	o.After, o.Attempts = l.Directory.Mappings(), int(attempts.Load())
	l.Ledger.End(o)
	return o
}

func (l *MeshLoad) call(ctx context.Context, c Call) (answer Answer, err error) {
	req := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/task/" + strconv.Itoa(c.Number)}, Header: http.Header{}}
	if c.Kind != Reads {
		const text = `{"order":"one"}`
		req.Method, req.ContentLength = http.MethodPost, int64(len(text))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
		req.Body, _ = req.GetBody() // never an error
	}
	if c.Kind == Keyed {
		req.Header.Set("Idempotency-Key", strconv.Itoa(c.Number))
	}
	resp, err := l.Client.Do(ctx, c.Target, req)
	if err != nil {
		return answer, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return answer, fmt.Errorf("read the answer: %w", err)
	case resp.StatusCode != http.StatusOK:
		return answer, fmt.Errorf("status %d: %s", resp.StatusCode, body)
	default:
		return answer, json.Unmarshal(body, &answer)
	}
}

type attemptsKey struct{}

// CountAttempts makes a transport count the attempts of a load's calls.
func CountAttempts(next http.RoundTripper) http.RoundTripper { return attemptCounter{next} }

type attemptCounter struct{ http.RoundTripper }

func (t attemptCounter) RoundTrip(r *http.Request) (*http.Response, error) {
	if n, ok := r.Context().Value(attemptsKey{}).(*atomic.Int64); ok {
		n.Add(1)
	}
	return t.RoundTripper.RoundTrip(r)
}
