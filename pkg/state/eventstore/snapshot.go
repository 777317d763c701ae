package eventstore

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"
)

// A Snapshot is the state that a stream's events lead to, up to a version.
type Snapshot struct {
	Stream  StreamID
	Schema  int    // of Data, as AggregateConfig.Schema
	Version int64  // of the last event in it
	EventID string // of that event: a snapshot of another history is told by it
	Data    []byte // JSON
}

// SnapshotPolicy says when a snapshot is taken: after a decision, when so many events, or so many bytes of them, lie behind the last one. Zero:
// that does not count. With both zero there are no snapshots.
type SnapshotPolicy struct {
	Events int
	Bytes  int
}

func (p SnapshotPolicy) due(events, bytes int) bool {
	return p.Events > 0 && events >= p.Events || p.Bytes > 0 && bytes >= p.Bytes
}

func (p SnapshotPolicy) none() bool { return p == SnapshotPolicy{} }

// restore makes the state of the last snapshot and the events behind it. False: there is none that fits.
func (a *Aggregate[S]) restore(ctx context.Context, id StreamID) (r replayed[S], restored bool, err error) {
	if a.cfg.Snapshots.none() {
		return r, false, nil
	}
	snapshot, found, events, more, err := a.store.engine.Restore(ctx, id, a.cfg.Schema, pageEvents)
	if err != nil {
		return r, false, fmt.Errorf("eventstore: read the snapshot of %s: %w", id, err)
	}
	if !found {
		return r, false, nil
	}
	if err := json.Unmarshal(snapshot.Data, &r.State); err != nil {
		a.store.cfg.Logger.WarnContext(ctx, "a snapshot cannot be read, and all events are", "stream", id.String(), "version", snapshot.Version, "error", err)
		return r, false, nil
	}
	r.Version, r.lastID = snapshot.Version, snapshot.EventID
	for _, e := range events {
		if err := a.replay(&r, e); err != nil {
			return r, false, err
		}
	}
	if more {
		err = a.replayFrom(ctx, id, &r)
	}
	return r, err == nil, err
}

// snapshot is taken where the policy says so. That it fails costs time later, and nothing else.
func (a *Aggregate[S]) snapshot(ctx context.Context, id StreamID, r *replayed[S]) {
	if !a.cfg.Snapshots.due(r.events, r.bytes) {
		return
	}
	data, err := json.Marshal(r.State)
	if err == nil {
		err = a.store.engine.SaveSnapshot(ctx, Snapshot{Stream: id, Schema: a.cfg.Schema, Version: r.Version, EventID: r.lastID, Data: data})
	}
	if err != nil {
		a.store.cfg.Logger.WarnContext(ctx, "a snapshot was not taken", "stream", id.String(), "version", r.Version, "error", err)
	}
}
