package mesh

import "time"

// absences are the instances that reads of the source do not show any more, with the time until which they are kept.
type absences map[[2]string]time.Time

// stillThere returns the instances that are known, are not in what was read, and are kept all the same. The directory's
// lock is held.
func (d *Directory) stillThere(before *snapshot, read []Endpoint) []Endpoint {
	present := make(map[[2]string]struct{}, len(read))
	for i := range read {
		present[[2]string{read[i].AppID, read[i].InstanceID}] = struct{}{}
	}
	now := time.Now()
	var kept []Endpoint
	absent := absences{}
	for _, g := range before.apps {
		for _, e := range g.all {
			id := [2]string{e.AppID, e.InstanceID}
			if _, there := present[id]; there || e.Status == StatusShuttingDown {
				continue
			}
			until, noted := d.absent[id]
			if !noted {
				until = d.keepUntil(e, now)
			}
			if now.Before(until) {
				absent[id] = until
				kept = append(kept, *e)
			}
		}
	}
	d.absent = absent
	if len(kept) > 0 {
		d.cfg.Logger.Warn("the mesh registry does not have instances that did not leave; they are kept until their next heartbeat is due",
			"instances", len(kept))
	}
	return kept
}

// keepUntil is how long an instance is kept that the source does not have for the first time. Where the source was there
// all the time, it is right about one that was quiet for an instance's life; where it was away, no heartbeat can have come.
func (d *Directory) keepUntil(e *Endpoint, now time.Time) time.Time {
	until := now.Add(d.cfg.ForgetAfter)
	away := now.Sub(d.current.Load().refreshed) > 2*d.cfg.RefreshInterval
	if gone := e.LastSeen.Add(GoneAfter); !away && gone.Before(until) {
		return gone
	}
	return until
}
