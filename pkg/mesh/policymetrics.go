package mesh

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// policyMetrics show what policies did to the calls of each target.
type policyMetrics struct {
	retries, hedges, opened, overloaded metric.Int64ObservableCounter
	breaker, calls, waiting             metric.Int64ObservableGauge
}

func newPolicyMetrics(m metric.Meter) (p policyMetrics, all []metric.Observable, err error) {
	counter := func(name, unit, description string) metric.Int64ObservableCounter {
		c, e := m.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
		if e != nil {
			err = e
		}
		all = append(all, c)
		return c
	}
	gauge := func(name, unit, description string) metric.Int64ObservableGauge {
		g, e := m.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description))
		if e != nil {
			err = e
		}
		all = append(all, g)
		return g
	}
	p.retries = counter("bannou.mesh.retries", "{request}",
		"Further attempts of calls, by target app-id and result: made, or overBudget.")
	p.hedges = counter("bannou.mesh.hedges", "{request}",
		"Second attempts beside a first one, by target app-id and result: won, or lost.")
	p.opened = counter("bannou.mesh.breaker.opened", "{time}", "How often the breaker of a target app-id opened.")
	p.overloaded = counter("bannou.mesh.bulkhead.refused", "{request}", "Calls that the bulkhead of a target app-id turned away.")
	p.breaker = gauge("bannou.mesh.breaker", "", "1 for the state that the breaker of a target app-id is in: closed, open, halfOpen; 0 for the others.")
	p.calls = gauge("bannou.mesh.bulkhead.calls", "{request}", "Calls within the bulkhead of a target app-id.")
	p.waiting = gauge("bannou.mesh.bulkhead.waiting", "{request}", "Calls that wait for their turn there.")
	return p, all, err
}

func (p *policyMetrics) observe(o metric.Observer, s *TargetState) {
	target := attribute.String("target", s.AppID)
	byTarget := metric.WithAttributes(target)
	by := func(key, value string) metric.MeasurementOption {
		return metric.WithAttributes(target, attribute.String(key, value))
	}
	o.ObserveInt64(p.retries, int64(s.Retries), by("result", "made"))
	o.ObserveInt64(p.retries, int64(s.RetriesRefused), by("result", "overBudget"))
	o.ObserveInt64(p.hedges, int64(s.HedgesWon), by("result", "won"))
	o.ObserveInt64(p.hedges, int64(s.Hedges-s.HedgesWon), by("result", "lost"))
	o.ObserveInt64(p.opened, int64(s.BreakerOpened), byTarget)
	for _, state := range []BreakerState{BreakerClosed, BreakerOpen, BreakerHalfOpen} {
		is := int64(0)
		if s.Breaker == state {
			is = 1
		}
		o.ObserveInt64(p.breaker, is, by("state", string(state)))
	}
	o.ObserveInt64(p.overloaded, int64(s.Overloaded), byTarget)
	o.ObserveInt64(p.calls, int64(s.Calls), byTarget)
	o.ObserveInt64(p.waiting, int64(s.Waiting), byTarget)
}
