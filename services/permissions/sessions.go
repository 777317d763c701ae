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
	Left         time.Time          `json:"left,omitzero"`          // when its client was given up last: states of before are late
	Ended        bool               `json:"ended,omitempty"`

	Version int64  `json:"version"`          // counts the changes of what is above
	Digest  string `json:"digest"`           // of the capabilities that were sent last
	Seen    int64  `json:"seen,omitempty"`   // the version of the catalogue that they are of
	Untold  bool   `json:"untold,omitempty"` // something else may have been sent since
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
	again, entered := false, false
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
		if !changed && !again && !e.Untold {
			return nil
		}
		if kept.ETag == "" && !entered {
			if err := s.index.enter(ctx, sessionID); err != nil {
				return err
			}
			entered = true
		}
		allowed := computed(c.allows(e))
		e.Version = following(e.Version, s.cfg.Now())
		// Who goes over all sessions because of a newer catalogue may have sent what is not noted.
		telling := e.differs(allowed, send || e.Seen != c.Version)
		e.Digest, e.Seen, e.Untold = allowed.digest, c.Version, telling
		saved, err := store.TrySaveWith(ctx, sessionKey(sessionID), *e, kept.ETag, state.SaveOptions{Expiry: s.lives(e)})
		if err != nil {
			return err
		}
		if telling {
			if err := s.send(ctx, sessionID, c.Version+e.Version, allowed.capabilities); err != nil {
				return err
			}
		}
		if _, now, err := s.catalogue(ctx); err != nil || now != seen {
			again = true
			return cmp.Or(err, state.ErrConflict)
		}
		if !telling {
			return nil
		}
		e.Untold = false
		_, err = store.TrySaveWith(ctx, sessionKey(sessionID), *e, saved.ETag, state.SaveOptions{Expiry: s.lives(e)})
		if errors.Is(err, state.ErrConflict) {
			return nil // whoever has changed it since tells what there is now
		}
		return err
	})
}

// send publishes what a session may call.
func (s *Service) send(ctx context.Context, sessionID string, version int64, allowed capabilities) error {
	_, err := s.cfg.Bus.PublishWith(ctx, events.TopicPermissionsSessionCapabilities, &events.SessionCapabilitiesEvent{
		SessionID: sessionID, Version: version, Capabilities: allowed,
	}, bus.PublishOptions{PartitionKey: sessionID})
	return unavailable(err)
}

// following is the version of a catalogue or a session that comes after another. Each is written down, by compare-and-set, before anything of
// it is sent. What a session may call follows from both, and has their sum for its version: so what follows from the latest of both has the
// highest, whatever the clocks of those say who send it. Where nothing was written down, or it was forgotten, the clock says where the
// numbers begin, above those that were.
func following(version int64, now time.Time) int64 {
	if version == 0 {
		return now.UnixMicro()
	}
	return version + 1
}

// differs reports whether what a session may call has to be sent.
func (e *entry) differs(allowed allowance, always bool) bool {
	return allowed.digest != e.Digest || always || e.Untold
}

func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", state.ErrUnavailable, err)
}
