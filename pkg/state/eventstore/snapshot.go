package eventstore

import (
	"context"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
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

// restore makes the state of the last snapshot and the events behind it, as far as until lets them in. False: there is no snapshot that fits.
func (a *Aggregate[S]) restore(ctx context.Context, id StreamID, until func(Recorded) bool) (r replayed[S], restored bool, err error) {
	if a.cfg.Snapshots.none() {
		return r, false, nil
	}
	snapshot, found, events, more, err := a.store.engine.Restore(ctx, id, a.cfg.Schema, pageEvents)
	if err != nil {
		return r, false, fmt.Errorf("eventstore: read the snapshot of %s: %w", id, err)
	}
	if !found || !until(events[0]) {
		return r, false, nil
	}
	data, key, err := a.store.keyring.openSnapshot(ctx, snapshot)
	if err != nil || data == nil { // nil: whom it was about is erased
		return r, false, err
	}
	if key != "" {
		r.about.keys = []string{key}
	}
	if err := json.Unmarshal(data, &r.State); err != nil {
		a.store.cfg.Logger.WarnContext(ctx, "a snapshot cannot be read, and all events are", "stream", id.String(), "version", snapshot.Version, "error", err)
		return r, false, nil
	}
	r.Version, r.lastID = snapshot.Version, snapshot.EventID
	behind := events[1:]
	if err := a.store.open(ctx, behind); err != nil {
		return r, false, err
	}
	for _, e := range behind {
		if !until(e) {
			return r, true, nil
		}
		if err := a.replay(&r, e); err != nil {
			return r, false, err
		}
	}
	if more {
		err = a.replayFrom(ctx, id, &r, until)
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
		data, err = a.store.keyring.sealSnapshot(ctx, id, r.lastID, data, r.about)
	}
	if err == nil && data != nil {
		err = a.store.engine.SaveSnapshot(ctx, Snapshot{Stream: id, Schema: a.cfg.Schema, Version: r.Version, EventID: r.lastID, Data: data})
	}
	if err != nil {
		a.store.cfg.Logger.WarnContext(ctx, "a snapshot was not taken", "stream", id.String(), "version", r.Version, "error", err)
	}
}

// SaveSnapshot keeps JSON as the snapshot of a stream at a version, for who computes states elsewhere than in an Aggregate: one that an
// Aggregate of that schema would read. It is kept unless there is one of the same or a later version. state.ErrInvalid: the stream has no such
// version, or data is not JSON. Schema 0 is 1. What is about a person names the subject, and goes with it when it is erased; "" is nobody.
func (s *Store) SaveSnapshot(ctx context.Context, stream StreamID, schema int, version int64, data jsontext.Value, subject string) error {
	if subject != "" {
		if err := checkSubject(subject); err != nil {
			return fmt.Errorf("eventstore: %w", err)
		}
	}
	switch {
	case version < 1 || schema < 0 || schema > 1<<15:
		return fmt.Errorf("eventstore: %w: a snapshot is of a version from 1, with a schema from 1", state.ErrInvalid)
	case len(data) > MaxDataBytes:
		return fmt.Errorf("eventstore: %w: the snapshot has %d bytes, at most %d may be", state.ErrTooLarge, len(data), MaxDataBytes)
	case !data.IsValid():
		return fmt.Errorf("eventstore: %w: the snapshot is not JSON", state.ErrInvalid)
	}
	e, found, err := s.eventAt(ctx, stream, version)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("eventstore: %w: stream %s has no version %d to take a snapshot of", state.ErrInvalid, stream, version)
	}
	var about subjects
	if subject != "" {
		about.named = []string{subject}
	}
	kept, err := s.keyring.sealSnapshot(ctx, stream, e.ID, slices.Clone(data), about)
	if err != nil {
		return err
	}
	snapshot := Snapshot{Stream: stream, Schema: max(schema, 1), Version: version, EventID: e.ID, Data: kept}
	if err := s.engine.SaveSnapshot(ctx, snapshot); err != nil {
		return fmt.Errorf("eventstore: keep the snapshot of %s: %w", stream, err)
	}
	return nil
}

// LoadSnapshot returns the snapshot of a stream, if there is one of its own history whose subject was not erased. Schema 0 is 1.
func (s *Store) LoadSnapshot(ctx context.Context, stream StreamID, schema int) (Snapshot, bool, error) {
	if err := stream.check(); err != nil {
		return Snapshot{}, false, fmt.Errorf("eventstore: %w", err)
	}
	snapshot, found, err := s.engine.LoadSnapshot(ctx, stream, max(schema, 1))
	if err != nil {
		return Snapshot{}, false, fmt.Errorf("eventstore: read the snapshot of %s: %w", stream, err)
	}
	if !found {
		return Snapshot{}, false, nil
	}
	e, found, err := s.eventAt(ctx, stream, snapshot.Version)
	if err != nil || !found || e.ID != snapshot.EventID {
		return Snapshot{}, false, err
	}
	snapshot.Data, _, err = s.keyring.openSnapshot(ctx, snapshot)
	return snapshot, snapshot.Data != nil, err
}

// eventAt reads the event of one version.
func (s *Store) eventAt(ctx context.Context, stream StreamID, version int64) (Recorded, bool, error) {
	for e, err := range s.ReadStream(ctx, stream, ReadOptions{From: version, Limit: 1}) {
		return e, err == nil && e.Version == version, err
	}
	return Recorded{}, false, nil
}
