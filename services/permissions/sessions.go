package permissions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// SessionStore has a value for each session, which goes by itself, and the index of them.
const SessionStore = "permissions-sessions"

const (
	stripes = 256
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

func sessionKey(sessionID string) string { return "session:" + sessionID }

// lives is how long the entry is kept from now on.
func (s *Service) lives(e *entry) state.Expiry {
	if e.Ended {
		return state.After(endedFor)
	}
	return state.After(s.cfg.SessionTTL)
}

// lock is that of a session, so that this process does not race with itself.
func (s *Service) lock(sessionID string) *sync.Mutex {
	h := fnv.New32a()
	_, _ = h.Write([]byte(sessionID))
	return &s.locks[h.Sum32()%stripes]
}

// absent is an error of reading a value that need not be there.
func absent(err error) error {
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	return err
}

// change says what is new of one session. It returns whether anything is, and whether the capabilities are sent also when they are
// the same. It may be called several times.
type change func(e *entry) (changed, send bool)

// update changes what is known of a session, and sends what it may call from then on. A catalogue that is changed meanwhile is seen
// by who changed it, or here: whoever of the two writes last reads what the other one wrote.
func (s *Service) update(ctx context.Context, sessionID string, apply change) error {
	if sessionID == "" || len(sessionID) > maxNameBytes {
		return bus.Permanent(fmt.Errorf("the id of a session has 1 to %d bytes", maxNameBytes))
	}
	lock := s.lock(sessionID)
	lock.Lock()
	defer lock.Unlock()
	store, err := state.Open[entry](ctx, s.cfg.Factory, SessionStore)
	if err != nil {
		return err
	}
	again, entered, sent := false, false, sentVersions{}
	redelivered := redelivered(ctx)
	return state.RetryOnConflict(ctx, func() error {
		c, seen, err := s.catalogue(ctx)
		if err != nil {
			return err
		}
		kept, err := store.GetWithETag(ctx, sessionKey(sessionID))
		if err = absent(err); err != nil {
			return err
		}
		e := &kept.Value
		changed, send := apply(e)
		if !changed && !again && !redelivered && len(sent) == 0 {
			return nil
		}
		if kept.ETag == "" && !entered {
			if err := s.index.enter(ctx, sessionID); err != nil {
				return err
			}
			entered = true
		}
		if err := s.send(ctx, s.cfg.Now(), sessionID, e, computed(c.allows(e)), send && !again || redelivered, sent); err != nil {
			return err
		}
		if _, err := store.TrySaveWith(ctx, sessionKey(sessionID), *e, kept.ETag, state.SaveOptions{Expiry: s.lives(e)}); err != nil {
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
	if !e.next(now, sessionID, allowed, always, sent) {
		return nil
	}
	_, err := s.cfg.Bus.PublishWith(ctx, events.TopicPermissionsSessionCapabilities, &events.SessionCapabilitiesEvent{
		SessionID: sessionID, Version: e.Version, Capabilities: allowed.capabilities,
	}, bus.PublishOptions{PartitionKey: sessionID})
	return unavailable(err)
}

// next gives what a session may call from now on its version; false: there is nothing to send.
func (e *entry) next(now time.Time, sessionID string, allowed allowance, always bool, sent sentVersions) bool {
	before := sent[sessionID]
	if allowed.digest == e.Digest && !always && before == 0 {
		return false
	}
	// A session that was forgotten and is heard of again has versions that go on: they are not below the time.
	e.Version, e.Digest = max(e.Version+1, before+1, now.UnixMicro()), allowed.digest
	sent[sessionID] = e.Version
	return true
}

func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", state.ErrUnavailable, err)
}
