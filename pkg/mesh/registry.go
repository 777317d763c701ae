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
	return &Registry{table: table, feed: feed, announceTimeout: cfg.AnnounceTimeout, log: cfg.Logger}, nil
}

// Register enters an instance, or replaces what it said before, and announces it. LastSeen is now and RegisteredAt is
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
// registered. LastSeen is when the heartbeat was sent; zero or a time to come is now. One that is older than what is
// known, than the instance's deregistration, or than GoneAfter, is ignored without an error. A known instance may leave
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
	now := wallClock()
	key := registryKey(appID, instanceID)
	entry, etag, err := read[Endpoint](ctx, r.table, key)
	if err = r.forgive(err); err != nil {
		return false, err
	}
	// The entry goes first: a registration that comes between the two steps is newer than the mark, and stays.
	if etag != "" {
		if err := r.table.Delete(ctx, key); err != nil {
			return false, err
		}
	}
	marked, err := r.markLeft(ctx, appID, instanceID, now)
	if err != nil || !marked {
		return false, err
	}
	entry.AppID, entry.InstanceID, entry.LastSeen = appID, instanceID, now
	r.announce(ctx, Change{Kind: ChangeDeregistered, Endpoint: entry})
	return true, nil
}

// markLeft strikes an instance from the index. Only one of several callers at once is told that it did.
func (r *Registry) markLeft(ctx context.Context, appID, instanceID string, now time.Time) (marked bool, err error) {
	err = retry(ctx, func() error {
		marked = false
		health, etag, err := read[appHealth](ctx, r.table, healthKey(appID))
		if err = r.forgive(err); err != nil {
			return err
		}
		line := health.find(instanceID)
		if line == nil || line.Left || line.LastSeen.After(now) {
			return nil
		}
		marked = true
		line.Left, line.LastSeen = true, now
		return r.writeHealth(ctx, appID, &health, etag, now)
	})
	return marked, err
}

// upsert writes an instance's entry, then its line in the index, then the list of app-ids. In this order a crash
// between two steps leaves what the next heartbeat completes, and no reader prunes what is about to be used.
func (r *Registry) upsert(ctx context.Context, e Endpoint, registration bool) error {
	now := wallClock()
	if e.LastSeen.IsZero() || e.LastSeen.After(now) {
		e.LastSeen = now
	}
	e.LastSeen = e.LastSeen.Round(0).UTC()
	if now.Sub(e.LastSeen) >= GoneAfter {
		return nil
	}
	if e.Status == "" {
		e.Status = StatusHealthy
	}
	health, etag, err := read[appHealth](ctx, r.table, healthKey(e.AppID))
	if err = r.forgive(err); err != nil {
		return err
	}
	if health.leftAfter(e.InstanceID, e.LastSeen) {
		return nil
	}
	moved, stale, err := r.putEntry(ctx, &e, registration, now)
	if err != nil || stale {
		return err
	}
	turned, unreachable, err := r.putLine(ctx, &e, health, etag, now, registration || moved)
	if err != nil {
		return err
	}
	if err := r.listApp(ctx, e.AppID, now); err != nil {
		return err
	}
	if unreachable && e.Status == StatusHealthy {
		e.Status = StatusDegraded // its own word is not enough
	}
	if registration || moved || turned {
		r.announce(ctx, Change{Kind: kindFor(e.Status), Endpoint: e, Unreachable: unreachable})
	}
	return nil
}

func kindFor(s Status) ChangeKind {
	if s == StatusHealthy {
		return ChangeRegistered
	}
	return ChangeDegraded
}

// putEntry writes the instance's own record, completed from what it said before. moved: it is new, or where it is or
// what it runs changed. stale: something newer is there already, nothing was written.
func (r *Registry) putEntry(ctx context.Context, e *Endpoint, registration bool, now time.Time) (moved, stale bool, err error) {
	said := *e
	err = retry(ctx, func() error {
		*e, moved, stale = said, true, false
		key := registryKey(e.AppID, e.InstanceID)
		known, etag, err := read[Endpoint](ctx, r.table, key)
		if err = r.forgive(err); err != nil {
			return err
		}
		e.RegisteredAt = now
		if _, gone := known.at(now); !gone {
			if !registration {
				e.complete(&known)
			}
			if registration && e.LastSeen.Before(known.LastSeen) {
				e.LastSeen = known.LastSeen // the clock of whoever wrote it is ahead of ours
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
		return tryWrite(ctx, r.table, key, e, etag, GoneAfter-max(0, now.Sub(e.LastSeen)))
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

// putLine writes the instance's line in the index, beginning with the record as it was read before the entry was
// written. anew forgets what probes found. turned: its status is another than the one last announced. unreachable: it does
// not answer probes.
func (r *Registry) putLine(ctx context.Context, e *Endpoint, health appHealth, etag string, now time.Time, anew bool) (turned, unreachable bool, err error) {
	first := true
	err = retry(ctx, func() error {
		if !first {
			var err error
			health, etag, err = read[appHealth](ctx, r.table, healthKey(e.AppID))
			if err = r.forgive(err); err != nil {
				return err
			}
		}
		first, turned = false, true
		next := instanceHealth{InstanceID: e.InstanceID, Status: e.Status, LoadPercent: e.LoadPercent, LastSeen: e.LastSeen}
		if line := health.find(e.InstanceID); line != nil {
			if e.LastSeen.Before(line.LastSeen) {
				turned = false
				return nil // a later heartbeat, or the deregistration, came between
			}
			turned = line.Left || line.Status != e.Status
			if !anew && !line.Left {
				next.Probes = line.Probes
			}
		}
		unreachable = next.Probes.failing(now)
		health.set(next)
		return r.writeHealth(ctx, e.AppID, &health, etag, now)
	})
	return turned, unreachable, err
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
