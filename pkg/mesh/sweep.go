package mesh

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Sweep finds the instances that have become quiet since the last sweep of any registry: those that are degraded now
// and those that are gone are announced, each once, also when several registries sweep at the same time. It also
// refreshes the service:routing records. Call it every 5 to 15 seconds from one node or from all; what it finds is true
// for readers before it ran, because statuses are computed when they are read.
func (r *Registry) Sweep(ctx context.Context) error {
	apps, err := r.apps(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, app := range apps {
		errs = append(errs, r.sweepApp(ctx, app))
	}
	errs = append(errs, r.refreshRouting(ctx))
	return errors.Join(errs...)
}

func (r *Registry) sweepApp(ctx context.Context, appID string) error {
	now := r.now()
	var quiet, gone []instanceHealth
	err := retry(ctx, func() error {
		quiet, gone = nil, nil
		health, etag, err := read[appHealth](ctx, r.table, healthKey(appID))
		if err = r.forgive(err); err != nil {
			return err
		}
		before := len(health.Instances)
		quiet, gone = health.sweep(now)
		if len(quiet) == 0 && len(health.Instances) == before {
			return nil
		}
		return r.writeHealth(ctx, appID, &health, etag, now) // whoever succeeds announces
	})
	if err != nil {
		return err
	}
	for _, line := range quiet {
		if err := r.announceQuiet(ctx, appID, line); err != nil {
			return err
		}
	}
	for _, line := range gone {
		r.announce(ctx, Change{Kind: ChangeDeregistered,
			Endpoint: Endpoint{AppID: appID, InstanceID: line.InstanceID, Status: StatusUnavailable, LastSeen: line.LastSeen}})
	}
	return nil
}

// sweep turns the status of lines that are quiet, and drops those that are gone; marks of such as left are dropped
// silently.
func (h *appHealth) sweep(now time.Time) (quiet, gone []instanceHealth) {
	h.Instances = slices.DeleteFunc(h.Instances, func(line instanceHealth) bool {
		if now.Sub(line.LastSeen) < GoneAfter {
			return false
		}
		if !line.Left {
			gone = append(gone, line)
		}
		return true
	})
	for i := range h.Instances {
		line := &h.Instances[i]
		if !line.Left && line.Status == StatusHealthy && now.Sub(line.LastSeen) >= DegradedAfter {
			line.Status = StatusDegraded
			quiet = append(quiet, *line)
		}
	}
	return quiet, gone
}

func (r *Registry) announceQuiet(ctx context.Context, appID string, line instanceHealth) error {
	e, etag, err := read[Endpoint](ctx, r.table, registryKey(appID, line.InstanceID))
	if err = r.forgive(err); err != nil {
		return err
	}
	if etag == "" || e.LastSeen.After(line.LastSeen) {
		return nil // it left, or came back, since
	}
	e.Status = StatusDegraded
	r.announce(ctx, Change{Kind: ChangeDegraded, Endpoint: e})
	return nil
}
