package daprstate

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A request is one save or delete as Dapr's API takes it.
type request struct {
	Key      string            `json:"key"`
	Value    jsontext.Value    `json:"value,omitzero"`
	ETag     string            `json:"etag,omitzero"`
	Metadata map[string]string `json:"metadata,omitzero"`
	Options  *options          `json:"options,omitzero"`
}

type options struct {
	Concurrency string `json:"concurrency"`
}

// absent is the ETag that no key of state.redis has: it compares ETags where the key exists, and makes the key otherwise.
const absent = "-1"

// Apply implements state.Engine. Each change is a request of its own, because the answer to several does not say which of them was made.
func (e *engine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	c, err := e.begin(ctx)
	if err != nil {
		return nil, err
	}
	before, err := e.before(ctx, c, changes)
	if err != nil {
		return nil, err
	}
	outcomes := make([]state.Outcome, len(changes))
	inParallel(len(changes), func(i int) {
		outcomes[i] = e.one(ctx, c, &changes[i], before[i])
		if err := outcomes[i].Err; err != nil {
			outcomes[i].Err = e.keyError(changes[i].Key, err)
		}
	})
	away := 0
	for _, o := range outcomes {
		if errors.Is(o.Err, state.ErrUnavailable) {
			away++
		}
	}
	if len(outcomes) > 0 && away == len(outcomes) {
		return nil, outcomes[0].Err
	}
	e.learn(ctx, c, changes, outcomes)
	return outcomes, nil
}

// inParallel does n things, some at a time.
func inParallel(n int, do func(i int)) {
	if n == 1 {
		do(0)
		return
	}
	var wait sync.WaitGroup
	turns := make(chan struct{}, parallelism)
	for i := range n {
		turns <- struct{}{}
		wait.Go(func() {
			defer func() { <-turns }()
			do(i)
		})
	}
	wait.Wait()
}

// before reads the keys of changes that are decided by what is there; a zero Record for the others.
func (e *engine) before(ctx context.Context, c component, changes []state.Change) ([]state.Record, error) {
	var keys []string
	at := make([]int, 0, len(changes))
	for i := range changes {
		if err := e.checkKey(changes[i].Key); err != nil {
			return nil, err
		}
		if needsRead(c, &changes[i]) {
			keys, at = append(keys, changes[i].Key), append(at, i)
		}
	}
	records := make([]state.Record, len(changes))
	read, err := e.read(ctx, c, keys)
	for i, r := range read {
		records[at[i]] = r
	}
	return records, err
}

// needsRead: deletes do not tell whether they deleted, a save with an ETag makes an absent key on state.redis, and other components forget when the
// key expires.
func needsRead(c component, change *state.Change) bool {
	return change.Delete || change.When == state.IfETag || change.Expiry == state.Keep && change.When == state.Always && !c.counts()
}

// one makes one change. r is the key as it was read, where needsRead.
func (e *engine) one(ctx context.Context, c component, change *state.Change, r state.Record) state.Outcome {
	for undone := 0; ; {
		if change.Delete && change.When == state.Always && !r.Found {
			return state.Outcome{}
		}
		if change.When == state.IfETag && (!r.Found || r.ETag != change.ETag) {
			return state.Outcome{Conflict: true, Absent: !r.Found}
		}
		err := e.send(ctx, c, change, r)
		switch {
		case err == nil:
			return done(c, change, r)
		case errors.Is(err, errDeadlock) && undone < deadlocks && apart(ctx, undone):
			undone++
			continue
		case !errors.Is(err, errConflict):
			return state.Outcome{Err: err}
		}
		again, err := e.read(ctx, c, []string{change.Key})
		switch {
		case err != nil:
			return state.Outcome{Err: fmt.Errorf("%w: %w", state.ErrOutcomeUnknown, err)}
		case holds(change, r, again[0]):
			// The component says conflict for any failure of a request with an ETag, such as that of a server that takes no writes.
			return state.Outcome{Err: fmt.Errorf("%w: the component refuses a change whose condition holds", state.ErrUnavailable)}
		case change.When == state.IfAbsent:
			return state.Outcome{Conflict: true}
		}
		r = again[0]
	}
}

// holds reports whether what a change was made on condition of is so, now that it was refused. before is the key as it was read first.
func holds(change *state.Change, before, now state.Record) bool {
	switch change.When {
	case state.IfAbsent:
		return !now.Found
	case state.IfETag:
		return now.Found && now.ETag == change.ETag
	default: // a delete, which is sent with the ETag that was read
		return now.Found && now.ETag == before.ETag
	}
}

// done is the outcome of a change that was made.
func done(c component, change *state.Change, r state.Record) state.Outcome {
	o := state.Outcome{Done: true}
	if change.Delete || !c.counts() {
		return o
	}
	switch {
	case change.When == state.IfAbsent:
		o.Version = 1
	case change.When == state.IfETag || r.Found:
		o.Version = r.Version + 1
	default:
		return o
	}
	o.ETag = strconv.FormatInt(o.Version, 10)
	return o
}

func (e *engine) send(ctx context.Context, c component, change *state.Change, r state.Record) error {
	s := &e.driver.sidecar
	if change.Delete {
		return e.sendDelete(ctx, change.Key, r.ETag)
	}
	req, err := e.save(c, change, r)
	if err != nil {
		return err
	}
	body, err := json.Marshal([]request{req})
	if err != nil {
		return fmt.Errorf("%w: %w", state.ErrInvalid, err)
	}
	_, sent, err := s.do(ctx, http.MethodPost, e.path(""), nil, body)
	var refused *refusal
	if change.When == state.Always && c.counts() && errors.As(err, &refused) && refused.status == http.StatusInternalServerError && req.ETag == "" {
		// Somebody else has saved it with first-write: only with its ETag can it be saved from then on.
		if records, err := e.read(ctx, c, []string{change.Key}); err == nil && records[0].Found {
			req.ETag = records[0].ETag
			if body, err = json.Marshal([]request{req}); err == nil {
				_, sent, err = s.do(ctx, http.MethodPost, e.path(""), nil, body)
				return s.writing(ctx, sent, err)
			}
		}
	}
	return s.writing(ctx, sent, err)
}

// save is a change as a request.
func (e *engine) save(c component, change *state.Change, r state.Record) (request, error) {
	if !e.driver.cfg.Rounding {
		if err := checkDigits(change.Value, c.counts()); err != nil {
			return request{}, err
		}
	}
	req := request{Key: e.prefix + change.Key, Value: change.Value}
	switch {
	case change.When == state.IfETag:
		req.ETag = change.ETag
	case change.When == state.IfAbsent && c.counts():
		req.ETag = absent
	case change.When == state.IfAbsent:
		req.Options = &options{"first-write"}
	}
	if seconds := ttl(c, change.Expiry, r.ExpiresAt); seconds != 0 {
		req.Metadata = map[string]string{"ttlInSeconds": strconv.FormatInt(seconds, 10)}
	}
	return req, nil
}

// ttl is an expiry in whole seconds, rounded up; 0: it is not said. state.redis leaves the expiry alone then, and other components remove it.
func ttl(c component, expiry state.Expiry, at time.Time) int64 {
	left, timed := expiry.TTL()
	switch {
	case timed:
	case expiry == state.Never && c.counts():
		return -1
	case expiry == state.Keep && !c.counts() && !at.IsZero():
		left = max(time.Until(at), time.Second)
	default:
		return 0
	}
	return int64((left + time.Second - 1) / time.Second)
}

// plain are keys that a path can carry.
var plain = regexp.MustCompile(`^[A-Za-z0-9_:~-][A-Za-z0-9_:~.-]*$`)

// sendDelete removes a key with that ETag.
func (e *engine) sendDelete(ctx context.Context, key, etag string) error {
	s := &e.driver.sidecar
	if name := e.prefix + key; plain.MatchString(name) {
		_, sent, err := s.do(ctx, http.MethodDelete, e.path("/"+url.PathEscape(name)), http.Header{"If-Match": {etag}}, nil)
		return s.writing(ctx, sent, err)
	}
	// Another one is named in a body: a transaction of one change, which on any failure is answered in the same way.
	err := e.transact(ctx, []operation{{"delete", request{Key: e.prefix + key, ETag: etag}}})
	if errors.Is(err, state.ErrOutcomeUnknown) {
		return errConflict // which the caller finds out
	}
	return err
}

// superseded is the ETag of a save after which another one came, which nobody has.
func superseded() string { return "superseded-" + rand.Text() }

// learn finds out the ETags of saves that were answered without.
func (e *engine) learn(ctx context.Context, c component, changes []state.Change, outcomes []state.Outcome) {
	var keys []string
	var at []int
	for i := range changes {
		if outcomes[i].Done && !changes[i].Delete && outcomes[i].ETag == "" {
			keys, at = append(keys, changes[i].Key), append(at, i)
		}
	}
	records, err := e.read(ctx, c, keys)
	for j, i := range at {
		switch {
		case err != nil: // what was made was made
			outcomes[i].ETag = superseded()
		case records[j].Found && same(records[j].Value, changes[i].Value):
			outcomes[i].ETag, outcomes[i].Version = records[j].ETag, records[j].Version
		default:
			outcomes[i].ETag = superseded()
		}
	}
}

// same compares two values as JSON, numbers as the floats that Dapr made of them.
func same(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, y := jsontext.Value(append([]byte(nil), a...)), jsontext.Value(append([]byte(nil), b...))
	return x.Canonicalize() == nil && y.Canonicalize() == nil && bytes.Equal(x, y)
}
