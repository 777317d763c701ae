package daprstate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// An operation is one change of a transaction.
type operation struct {
	Operation string  `json:"operation"`
	Request   request `json:"request"`
}

// Transact implements state.Engine. state.redis makes the other changes of a transaction of which one does not hold, so that none with conditions is
// begun there.
func (e *engine) Transact(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	c, err := e.begin(ctx)
	if err != nil {
		return nil, err
	}
	if len(changes) == 1 {
		outcomes, err := e.Apply(ctx, changes)
		if err == nil && outcomes[0].Err != nil {
			return nil, outcomes[0].Err
		}
		return outcomes, err
	}
	for i := range changes {
		if c.counts() && changes[i].When != state.Always {
			return nil, e.storeError(fmt.Errorf("%w: the component %s (state.redis) makes half of a transaction when a condition does not hold: change single keys on condition, or all without", state.ErrUnsupported, e.component))
		}
	}
	before, err := e.all(ctx, c, changes)
	if err != nil {
		return nil, err
	}
	if outcomes, conflict := conflicts(changes, before); conflict {
		return outcomes, nil
	}
	operations, outcomes, err := e.operations(c, changes, before)
	if err != nil {
		return nil, err
	}
	if len(operations) > 0 {
		err = e.transact(ctx, operations)
	}
	if err == nil {
		e.learn(ctx, c, changes, outcomes)
		return outcomes, nil
	}
	if errors.Is(err, errConflict) {
		return e.lost(ctx, c, changes)
	}
	return nil, e.storeError(err)
}

// lost tells of which keys the conditions did not hold in a transaction that was not made for it. Where they hold again, all are named.
func (e *engine) lost(ctx context.Context, c component, changes []state.Change) ([]state.Outcome, error) {
	now, err := e.all(ctx, c, changes)
	if err != nil {
		return nil, err
	}
	outcomes, conflict := conflicts(changes, now)
	for i := range outcomes {
		outcomes[i].Conflict = outcomes[i].Conflict || !conflict && changes[i].When != state.Always
	}
	return outcomes, nil
}

// all reads the keys of all changes.
func (e *engine) all(ctx context.Context, c component, changes []state.Change) ([]state.Record, error) {
	keys := make([]string, len(changes))
	for i := range changes {
		keys[i] = changes[i].Key
	}
	return e.read(ctx, c, keys)
}

// conflicts are the conditions that do not hold for the keys as they were read.
func conflicts(changes []state.Change, records []state.Record) (outcomes []state.Outcome, conflict bool) {
	outcomes = make([]state.Outcome, len(changes))
	for i, r := range records {
		switch c := &changes[i]; {
		case c.When == state.IfAbsent && r.Found:
			outcomes[i].Conflict = true
		case c.When == state.IfETag && (!r.Found || r.ETag != c.ETag):
			outcomes[i].Conflict, outcomes[i].Absent = true, !r.Found
		}
		conflict = conflict || outcomes[i].Conflict
	}
	return outcomes, conflict
}

// operations are the changes as Dapr takes them. A delete of what is not there is none.
func (e *engine) operations(c component, changes []state.Change, before []state.Record) ([]operation, []state.Outcome, error) {
	var operations []operation
	outcomes := make([]state.Outcome, len(changes))
	for i := range changes {
		change := &changes[i]
		if change.Delete {
			if before[i].Found {
				outcomes[i].Done = true
				req := request{Key: e.prefix + change.Key}
				if change.When == state.IfETag {
					req.ETag = change.ETag
				}
				operations = append(operations, operation{"delete", req})
			}
			continue
		}
		req, err := e.save(c, change, before[i])
		if err != nil {
			return nil, nil, e.keyError(change.Key, err)
		}
		outcomes[i].Done = true
		operations = append(operations, operation{"upsert", req})
	}
	return operations, outcomes, nil
}

// deadlocks is how often a change is begun again that the database has undone.
const deadlocks = 20

// apart waits before a change is begun again, each time about twice as long, up to an eighth of a second: callers who begin again at once undo
// each other again. False: ctx has ended.
func apart(ctx context.Context, before int) bool {
	pause := time.NewTimer(rand.N(2 * time.Millisecond << min(before, 6))) //nolint:gosec // spreads callers, guards nothing
	defer pause.Stop()
	select {
	case <-pause.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (e *engine) transact(ctx context.Context, operations []operation) error {
	body, err := json.Marshal(struct {
		Operations []operation `json:"operations"`
	}{operations})
	if err != nil {
		return fmt.Errorf("%w: %w", state.ErrInvalid, err)
	}
	for attempt := 0; ; attempt++ {
		_, sent, err := e.driver.sidecar.do(ctx, http.MethodPost, e.path("/transaction"), nil, body)
		if err = e.driver.sidecar.writing(ctx, sent, err); !errors.Is(err, errDeadlock) || attempt == deadlocks || !apart(ctx, attempt) {
			return err
		}
	}
}
