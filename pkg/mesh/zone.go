package mesh

// overprovisioned is how much more than its share an instance can take while others of its zone are missing: with five
// of seven, a zone still carries itself. It is Envoy's overprovisioning factor.
const overprovisioned = 1.4

// byZone divides instances into those of this client's zone and the others. Without a zone of its own it has no others.
func (p *pool) byZone(all []*Instance) (near, far []*Instance) {
	if p.zone == "" {
		return all, nil
	}
	for _, in := range all {
		if in.Endpoint().Zone == p.zone {
			near = append(near, in)
		} else {
			far = append(far, in)
		}
	}
	return near, far
}

// nearShare is the part of the requests that stays in this client's zone: all while enough of its instances there take
// requests, less in proportion when fewer do. Those that are leaving are not missed.
func (p *pool) nearShare(g *group, service string, free []*Instance, without string) float64 {
	all := 0
	for _, e := range g.all {
		if e.Zone == p.zone && e.InstanceID != without && e.Status != StatusShuttingDown && (service == "" || runs(e, service)) {
			all++
		}
	}
	able, _ := p.byZone(free)
	if all == 0 {
		return 1
	}
	return min(1, overprovisioned*float64(len(able))/float64(all))
}
