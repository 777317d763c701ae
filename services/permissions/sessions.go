package permissions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// SessionStore has what is known of sessions, in shards.
const SessionStore = "permissions-sessions"

const (
	shards = 64
	tries  = 20
	// endedFor is how long it is remembered that a session has ended, so that what comes late does not bring it back.
	endedFor = 10 * time.Minute
)

// An entry is what is known of a session.
type entry struct {
	AccountID    string             `json:"accountId,omitempty"`
	Roles        []string           `json:"roles,omitempty"`
	RolesVersion int64              `json:"rolesVersion,omitempty"` // of the account that they are from
	States       map[string]stateOf `json:"states,omitempty"`       // by service
	Ended        bool               `json:"ended,omitempty"`
	Until        time.Time          `json:"until"`

	Version int64  `json:"version"` // of the capabilities that were sent last
	Digest  string `json:"digest"`  // of them
}

// A stateOf is the state in one service, empty for none, and when it was entered.
type stateOf struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}

// meets reports whether the session satisfies a requirement.
func (e *entry) meets(r events.PermissionsRequirement) bool {
	if !slices.Contains(e.Roles, r.Role) {
		return false
	}
	for service, name := range r.States {
		if name == "" || e.States[service].Name != name {
			return false
		}
	}
	return true
}

// signature is the same for sessions that may call the same.
func (e *entry) signature() string {
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, "%t %q", e.Ended, e.Roles)
	for _, service := range slices.Sorted(maps.Keys(e.States)) {
		_, _ = fmt.Fprintf(&b, " %q:%q", service, e.States[service].Name)
	}
	return b.String()
}

// A shard is the entries of some sessions.
type shard struct {
	Sessions map[string]*entry `json:"sessions"`
}

func shardOf(sessionID string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(sessionID))
	return int(h.Sum32() % shards)
}

func shardKey(n int) string { return fmt.Sprintf("shard:%02d", n) }

// change says what is new of one session. It returns whether anything is, and whether the capabilities are sent also when they are
// the same. It may be called several times.
type change func(e *entry) (changed, send bool)

// update changes what is known of a session, and sends what it may call from then on. A catalogue that is changed meanwhile is seen
// by who changed it, or here: whoever of the two writes last reads what the other one wrote.
func (s *Service) update(ctx context.Context, sessionID string, apply change) error {
	n := shardOf(sessionID)
	s.locks[n].Lock()
	defer s.locks[n].Unlock()
	store, err := state.Open[shard](ctx, s.cfg.Factory, SessionStore)
	if err != nil {
		return err
	}
	again, sent := false, sentVersions{}
	redelivered := redelivered(ctx)
	return retrying(ctx, func() error {
		c, seen, err := s.catalogue(ctx)
		if err != nil {
			return err
		}
		kept, err := store.GetWithETag(ctx, shardKey(n))
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		e := kept.Value.entry(sessionID)
		changed, send := apply(e)
		if !changed && !again && !redelivered && len(sent) == 0 {
			return nil
		}
		now := s.cfg.Now()
		if err := s.send(ctx, now, sessionID, e, computed(c.allows(e)), send && !again || redelivered, sent); err != nil {
			return err
		}
		e.Until = now.Add(s.cfg.SessionTTL)
		if e.Ended {
			e.Until = now.Add(endedFor)
		}
		kept.Value.prune(now)
		if _, err := store.TrySaveWith(ctx, shardKey(n), kept.Value, kept.ETag, state.SaveOptions{Expiry: state.Never}); err != nil {
			return err
		}
		clear(sent)
		if _, now, err := s.catalogue(ctx); err != nil || now != seen {
			again = true
			return cmp.Or(err, state.ErrConflict)
		}
		return nil
	})
}

// entry returns that of a session, a new one if there is none.
func (v *shard) entry(sessionID string) *entry {
	if v.Sessions == nil {
		v.Sessions = map[string]*entry{}
	}
	if v.Sessions[sessionID] == nil {
		v.Sessions[sessionID] = new(entry)
	}
	return v.Sessions[sessionID]
}

// prune forgets sessions whose time is over.
func (v *shard) prune(now time.Time) {
	maps.DeleteFunc(v.Sessions, func(_ string, e *entry) bool { return !e.Until.IsZero() && now.After(e.Until) })
}

// sentVersions are those of capabilities, by session, that were sent and are not noted as sent, because another process was faster to change
// the session. What that one has sent may have a lower version: so something is sent after them in any case.
type sentVersions map[string]int64

// redelivered reports whether an event was in work before, and something may have been sent because of it.
func redelivered(ctx context.Context) bool {
	r, handling := bus.ReceivedFrom(ctx)
	return handling && r.Attempt > 1
}

// send publishes what a session may call, if it is something else than was sent last, or has to be.
func (s *Service) send(ctx context.Context, now time.Time, sessionID string, e *entry, allowed allowance, always bool, sent sentVersions) error {
	publication, err := s.begin(ctx, now, sessionID, e, allowed, always, sent)
	if err != nil || publication == nil {
		return err
	}
	return unavailable(publication.Wait())
}

// begin is send without the wait; nil: there is nothing to send.
func (s *Service) begin(ctx context.Context, now time.Time, sessionID string, e *entry, allowed allowance, always bool, sent sentVersions) (*bus.Publication, error) {
	before := sent[sessionID]
	if allowed.digest == e.Digest && !always && before == 0 {
		return nil, nil //nolint:nilnil // said so
	}
	// A session that was forgotten and is heard of again has versions that go on: they are not below the time.
	e.Version, e.Digest = max(e.Version+1, before+1, now.UnixMicro()), allowed.digest
	sent[sessionID] = e.Version
	publication, err := s.cfg.Bus.PublishAsync(ctx, events.TopicPermissionsSessionCapabilities, &events.SessionCapabilitiesEvent{
		SessionID: sessionID, Version: e.Version, Capabilities: allowed.capabilities,
	}, bus.PublishOptions{PartitionKey: sessionID})
	return publication, unavailable(err)
}

func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", state.ErrUnavailable, err)
}

// recomputeAll computes what all sessions may call, and sends what has changed.
func (s *Service) recomputeAll(ctx context.Context) (sent int, err error) {
	for n := range s.locks {
		s.locks[n].Lock()
		defer s.locks[n].Unlock()
	}
	store, err := state.Open[shard](ctx, s.cfg.Factory, SessionStore)
	if err != nil {
		return 0, err
	}
	left, unsaved := allShards(), sentVersions{}
	err = retrying(ctx, func() error {
		c, seen, err := s.catalogue(ctx)
		if err != nil {
			return err
		}
		kept, err := store.GetBulk(ctx, left)
		if err != nil {
			return err
		}
		var items []state.Item[shard]
		var publications []*bus.Publication
		alike := map[string]allowance{} // sessions with the same roles and states may call the same
		for i := range kept {
			changed, err := s.recompute(ctx, c, &kept[i].Value, alike, unsaved)
			publications = append(publications, changed...)
			if err != nil {
				return errors.Join(err, waitAll(publications))
			}
			if len(changed) > 0 {
				items = append(items, state.Item[shard]{Key: kept[i].Key, Value: kept[i].Value, ETag: &kept[i].ETag, Expiry: state.Never})
			}
		}
		if err := waitAll(publications); err != nil {
			return err
		}
		sent += len(publications)
		if len(items) == 0 {
			return nil
		}
		results, err := store.SaveBulk(ctx, items)
		if err != nil {
			return err
		}
		for i, r := range results {
			if r.Err == nil {
				maps.DeleteFunc(unsaved, func(id string, _ int64) bool { return items[i].Value.Sessions[id] != nil })
			}
		}
		if _, now, err := s.catalogue(ctx); err != nil || now != seen {
			// What was written may be of an older catalogue than what it replaced.
			left = allShards()
			return cmp.Or(err, state.ErrConflict)
		}
		left = left[:0]
		var errs []error
		for i, r := range results {
			if r.Err != nil {
				left, errs = append(left, items[i].Key), append(errs, r.Err)
			}
		}
		return errors.Join(errs...)
	})
	return sent, err
}

func allShards() []string {
	keys := make([]string, shards)
	for n := range keys {
		keys[n] = shardKey(n)
	}
	return keys
}

// recompute does it for the sessions of a shard.
func (s *Service) recompute(ctx context.Context, c catalogue, v *shard, alike map[string]allowance, unsaved sentVersions) (sent []*bus.Publication, err error) {
	now := s.cfg.Now()
	for id, e := range v.Sessions {
		of := e.signature()
		allowed, known := alike[of]
		if !known {
			allowed = computed(c.allows(e))
			alike[of] = allowed
		}
		p, err := s.begin(ctx, now, id, e, allowed, false, unsaved)
		if err != nil {
			return sent, err
		}
		if p != nil {
			sent = append(sent, p)
		}
	}
	return sent, nil
}

func waitAll(publications []*bus.Publication) error {
	var errs []error
	for _, p := range publications {
		errs = append(errs, p.Wait())
	}
	return unavailable(errors.Join(errs...))
}

// retrying runs what may lose a race, until it does not.
func retrying(ctx context.Context, run func() error) error {
	for try := 1; ; try++ {
		err := run()
		if !errors.Is(err, state.ErrConflict) || try == tries {
			return err
		}
		select {
		case <-time.After(rand.N(time.Millisecond << min(try, 5))): //nolint:gosec // spreads those who compete, guards nothing
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}
