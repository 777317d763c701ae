package mesh

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

// RegistryConfig configures a Registry. The zero value is ready to use.
type RegistryConfig struct {
	// AnnounceTimeout bounds one announcement. What was written stands when it fails: directories find it with their
	// next refresh. Default 2 s.
	AnnounceTimeout time.Duration
	// Logger hears of announcements that failed and records that cannot be read. Default: nobody.
	Logger *slog.Logger
}

// A Registry knows who is there and which service is where. It holds nothing itself: any number of registries, in any
// number of processes, may work on one table at once. Every change of a shared record is a compare-and-set that is tried
// again until it holds, so concurrent registrations never lose one another. It is safe for concurrent use.
//
// Errors wrap what the table returned, or are *InvalidError.
type Registry struct {
	table           Table
	feed            Feed
	announceTimeout time.Duration
	log             *slog.Logger
	now             func() time.Time
	routed          atomic.Int64 // when service:routing records were last refreshed, Unix nanoseconds
}

// NewRegistry returns a registry over a table and a feed, which the caller keeps and closes.
func NewRegistry(table Table, feed Feed, cfg RegistryConfig) (*Registry, error) {
	if table == nil || feed == nil {
		return nil, errors.New("a registry needs a table and a feed")
	}
	if cfg.AnnounceTimeout <= 0 {
		cfg.AnnounceTimeout = 2 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Registry{table: table, feed: feed, announceTimeout: cfg.AnnounceTimeout, log: cfg.Logger, now: wallClock}, nil
}

// Register enters an instance, or replaces what it said before, and announces it. LastSeen is now, and later than what is known, and RegisteredAt is
// kept from an earlier registration that still stands, whatever the argument has; an empty Status is healthy. A
// registration that was on its way for a while is a Heartbeat, which looks at its time.
func (r *Registry) Register(ctx context.Context, e Endpoint) error {
	if err := e.Validate(); err != nil {
		return err
	}
	e.LastSeen = time.Time{}
	return r.upsert(ctx, e, true)
}

// Heartbeat prolongs an instance's life and takes over what it says of itself; an instance that is not known is
// registered. LastSeen is when a heartbeat was sent that may have been on its way for a while; a time to come is now. One that is
// older than what is known, than the instance's deregistration, or than GoneAfter, is ignored without an error. Zero is for one
// that is said just now: it is never older than what is known, whatever the clocks of those who wrote that. A known instance may leave
// out Host and Port, ExternalHost, Services (nil), Zone and MaxConnections: they stay as they were. A change of status,
// address, zone or services is announced.
func (r *Registry) Heartbeat(ctx context.Context, e Endpoint) error {
	if err := validName("appId", e.AppID); err != nil {
		return err
	}
	if err := validName("instanceId", e.InstanceID); err != nil {
		return err
	}
	return r.upsert(ctx, e, false)
}

// Deregister removes an instance and announces it. False: it was not there.
func (r *Registry) Deregister(ctx context.Context, appID, instanceID string) (bool, error) {
	if err := validName("appId", appID); err != nil {
		return false, err
	}
	if err := validName("instanceId", instanceID); err != nil {
		return false, err
	}
	entry, seen, gone, err := r.removeEntry(ctx, appID, instanceID)
	if err != nil || !gone {
		return false, err
	}
	// The entry went first: a registration that comes between the two steps is newer than the mark, and stays.
	left := seen.Add(1)
	marked, err := r.markLeft(ctx, appID, instanceID, seen, left)
	if err != nil || !marked {
		return false, err
	}
	entry.AppID, entry.InstanceID, entry.LastSeen = appID, instanceID, left
	r.announce(ctx, Change{Kind: ChangeDeregistered, Endpoint: entry})
	return true, nil
}

// removeEntry removes an instance's entry, and returns what it was and until when the instance was seen at the latest: now, or
// later by the clock of whoever wrote the entry. gone is false if another one was written since by a newer registration, which stays.
func (r *Registry) removeEntry(ctx context.Context, appID, instanceID string) (entry Endpoint, seen time.Time, gone bool, err error) {
	key, began := registryKey(appID, instanceID), r.now()
	err = retry(ctx, func() error {
		var etag string
		var err error
		entry, etag, err = read[Endpoint](ctx, r.table, key)
		if err = r.forgive(err); err != nil {
			return err
		}
		if seen.IsZero() {
			seen = latest(began, entry.LastSeen)
		}
		if gone = !entry.LastSeen.After(seen); !gone || etag == "" {
			return nil
		}
		err = r.table.TryDelete(ctx, key, etag) // in conflict with what was still on its way: once more
		if errors.Is(err, ErrNotFound) {
			return nil // it expired
		}
		return err
	})
	return entry, seen, gone, err
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// markLeft strikes an instance from the index that was not seen after an instant. Only one of several callers at once is told
// that it did.
func (r *Registry) markLeft(ctx context.Context, appID, instanceID string, seen, left time.Time) (marked bool, err error) {
	now := r.now()
	err = retry(ctx, func() error {
		marked = false
		health, etag, err := read[appHealth](ctx, r.table, healthKey(appID))
		if err = r.forgive(err); err != nil {
			return err
		}
		line := health.find(instanceID)
		if line == nil || line.Left || line.LastSeen.After(seen) {
			return nil
		}
		marked = true
		line.Left, line.LastSeen = true, left
		return r.writeHealth(ctx, appID, &health, etag, now)
	})
	return marked, err
}

// A write is what an instance says, on its way into the table.
type write struct {
	registration bool
	timeless     bool // it came without a time of its own: it is later than all that is known, whatever the clocks of those who wrote that
	now          time.Time
}

// follows returns when something was seen that is known to be later than an instant: it says when by our clock, if that agrees.
func follows(seen, before time.Time) time.Time {
	if seen.Before(before) {
		return before.Add(1)
	}
	return seen
}

// upsert writes an instance's entry, then its line in the index, then the list of app-ids. In this order a crash
// between two steps leaves what the next heartbeat completes, and no reader prunes what is about to be used.
func (r *Registry) upsert(ctx context.Context, e Endpoint, registration bool) error {
	w := write{registration: registration, timeless: e.LastSeen.IsZero(), now: r.now()}
	if w.timeless || e.LastSeen.After(w.now) {
		e.LastSeen = w.now
	}
	e.LastSeen = e.LastSeen.Round(0).UTC()
	if w.now.Sub(e.LastSeen) >= GoneAfter {
		return nil
	}
	if e.Status == "" {
		e.Status = StatusHealthy
	}
	for {
		undone, err := r.tryUpsert(ctx, e, w)
		if err != nil || !undone {
			return err
		}
	}
}

// tryUpsert reports a registration undone that a deregistration came between: what is answered with success is there.
func (r *Registry) tryUpsert(ctx context.Context, e Endpoint, w write) (undone bool, err error) {
	health, etag, err := read[appHealth](ctx, r.table, healthKey(e.AppID))
	if err = r.forgive(err); err != nil {
		return false, err
	}
	if line := health.find(e.InstanceID); line != nil && e.LastSeen.Before(line.LastSeen) {
		if w.timeless {
			e.LastSeen = follows(e.LastSeen, line.LastSeen)
		} else if line.Left {
			return false, nil
		}
	}
	moved, stale, err := r.putEntry(ctx, &e, w)
	if err != nil || stale {
		return false, err
	}
	line, err := r.putLine(ctx, &e, health, etag, w.now, w.registration || moved)
	if err != nil || line.left { // a heartbeat came before the deregistration
		return w.registration, err
	}
	if err := r.listApp(ctx, e.AppID, w.now); err != nil {
		return false, err
	}
	unreachable := line.unreachable && e.Status == StatusHealthy
	if unreachable {
		e.Status = StatusDegraded // its own word is not enough
	}
	if w.registration || moved || line.turned {
		r.announce(ctx, Change{Kind: kindFor(e.Status), Endpoint: e, Unreachable: unreachable})
	}
	return false, nil
}

func kindFor(s Status) ChangeKind {
	if s == StatusHealthy {
		return ChangeRegistered
	}
	return ChangeDegraded
}

// putEntry writes the instance's own record, completed from what it said before. moved: it is new, or where it is or
// what it runs changed. stale: something newer is there already, nothing was written.
func (r *Registry) putEntry(ctx context.Context, e *Endpoint, w write) (moved, stale bool, err error) {
	said := *e
	err = retry(ctx, func() error {
		*e, moved, stale = said, true, false
		key := registryKey(e.AppID, e.InstanceID)
		known, etag, err := read[Endpoint](ctx, r.table, key)
		if err = r.forgive(err); err != nil {
			return err
		}
		e.RegisteredAt = w.now
		if _, gone := known.at(w.now); !gone {
			if !w.registration {
				e.complete(&known)
			}
			if w.timeless {
				e.LastSeen = follows(e.LastSeen, known.LastSeen)
			}
			stale = e.LastSeen.Before(known.LastSeen)
			moved = !sameAddress(e, &known)
			e.RegisteredAt = known.RegisteredAt
		}
		if stale {
			return nil
		}
		if err := e.Validate(); err != nil {
			return err
		}
		// The life that is left counts from when it was seen, not from when we heard of it.
		return tryWrite(ctx, r.table, key, e, etag, GoneAfter-max(0, w.now.Sub(e.LastSeen)))
	})
	return moved, stale, err
}

// complete fills in what a short heartbeat leaves out.
func (e *Endpoint) complete(known *Endpoint) {
	if e.Host == "" && e.Port == 0 {
		e.Host, e.Port = known.Host, known.Port
	}
	if e.ExternalHost == "" {
		e.ExternalHost = known.ExternalHost
	}
	if e.Services == nil {
		e.Services = known.Services
	}
	e.Zone = cmp.Or(e.Zone, known.Zone)
	if e.MaxConnections == 0 {
		e.MaxConnections = known.MaxConnections
	}
}

func sameAddress(a, b *Endpoint) bool {
	return a.Host == b.Host && a.Port == b.Port && a.ExternalHost == b.ExternalHost && a.Zone == b.Zone && slices.Equal(a.Services, b.Services)
}

// A lineWritten is what became of an instance's line in the index.
type lineWritten struct {
	turned      bool // its status is another than the one last announced
	unreachable bool // it does not answer probes
	left        bool // nothing was written: the instance was deregistered meanwhile
}

// putLine writes the instance's line in the index, beginning with the record as it was read before the entry was
// written. anew forgets what probes found.
func (r *Registry) putLine(ctx context.Context, e *Endpoint, health appHealth, etag string, now time.Time, anew bool) (w lineWritten, err error) {
	first := true
	err = retry(ctx, func() error {
		if !first {
			var err error
			health, etag, err = read[appHealth](ctx, r.table, healthKey(e.AppID))
			if err = r.forgive(err); err != nil {
				return err
			}
		}
		first, w = false, lineWritten{turned: true}
		next := instanceHealth{InstanceID: e.InstanceID, Status: e.Status, LoadPercent: e.LoadPercent, LastSeen: e.LastSeen}
		if line := health.find(e.InstanceID); line != nil {
			if e.LastSeen.Before(line.LastSeen) {
				w = lineWritten{left: line.Left}
				return nil // a later heartbeat, or the deregistration, came between
			}
			w.turned = line.Left || line.Status != e.Status
			if !anew && !line.Left {
				next.Probes = line.Probes
			}
		}
		w.unreachable = next.Probes.failing(now)
		health.set(next)
		return r.writeHealth(ctx, e.AppID, &health, etag, now)
	})
	return w, err
}

// writeHealth stores the index of an app-id. Lines that nobody swept are dropped at twice an instance's life.
func (r *Registry) writeHealth(ctx context.Context, appID string, health *appHealth, etag string, now time.Time) error {
	health.Instances = slices.DeleteFunc(health.Instances, func(i instanceHealth) bool {
		return now.Sub(i.LastSeen) >= 2*GoneAfter
	})
	health.settle(appID, now)
	return tryWrite(ctx, r.table, healthKey(appID), health, etag, GoneAfter)
}

// listApp enters the app-id in the list of all, or renews it there when its time gets old.
func (r *Registry) listApp(ctx context.Context, appID string, now time.Time) error {
	return retry(ctx, func() error {
		list, etag, err := read[appList](ctx, r.table, keyApps)
		if err = r.forgive(err); err != nil {
			return err
		}
		if seen, ok := list.Apps[appID]; ok && now.Sub(seen) < appsRefresh {
			return nil
		}
		apps := map[string]time.Time{appID: now}
		for app, seen := range list.Apps {
			if app != appID && now.Sub(seen) < appsTTL {
				apps[app] = seen
			}
		}
		return tryWrite(ctx, r.table, keyApps, appList{Apps: apps}, etag, appsTTL)
	})
}

// forgive turns a record that cannot be decoded into an absent one: those that expire are written anew anyway.
func (r *Registry) forgive(err error) error {
	var corrupt *corruptError
	if errors.As(err, &corrupt) {
		r.log.Error("a mesh record cannot be decoded and counts as absent", "key", corrupt.key, "error", corrupt.err)
		return nil
	}
	return err
}

func (r *Registry) announce(ctx context.Context, c Change) {
	ctx, cancel := context.WithTimeout(ctx, r.announceTimeout)
	defer cancel()
	if err := r.feed.Announce(ctx, c); err != nil {
		r.log.Warn("a mesh change was written and not announced; directories find it with their next refresh",
			"kind", string(c.Kind), "appId", c.Endpoint.AppID, "instanceId", c.Endpoint.InstanceID, "error", err)
	}
}

// wallClock is now as it survives JSON: no monotonic part.
func wallClock() time.Time { return time.Now().Round(0).UTC() }
