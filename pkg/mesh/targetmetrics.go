package mesh

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// ejected counts an ejection.
func (t *telemetry) ejected(appID string, reason ejectionReason) {
	t.ejections.Add(context.Background(), 1, metric.WithAttributes(
		attribute.String("target", appID), attribute.String("reason", string(reason))))
}

// observe begins to show the state of targets whenever metrics are read: calls only change what they change anyway.
func (t *telemetry) observe(targets func() []TargetState) error {
	picks, err := t.meter.Int64ObservableCounter("bannou.mesh.picks", metric.WithUnit("{request}"),
		metric.WithDescription("Requests sent to instances, further attempts included, by target app-id."))
	if err != nil {
		return err
	}
	instances, err := t.meter.Int64ObservableGauge("bannou.mesh.instances", metric.WithUnit("{instance}"),
		metric.WithDescription("Instances of a target app-id that was called, by state: available, warming, ejected, or their status in the registry."))
	if err != nil {
		return err
	}
	inFlight, err := t.meter.Int64ObservableGauge("bannou.mesh.in_flight", metric.WithUnit("{request}"),
		metric.WithDescription("Requests sent to instances whose responses are not over, by target app-id."))
	if err != nil {
		return err
	}
	panics, err := t.meter.Int64ObservableGauge("bannou.mesh.panic",
		metric.WithDescription("1 while so few instances are left that ejected ones get requests too, by target app-id."))
	if err != nil {
		return err
	}
	policy, observed, err := newPolicyMetrics(t.meter)
	if err != nil {
		return err
	}
	t.observing, err = t.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, s := range targets() {
			target := attribute.String("target", s.AppID)
			byTarget := metric.WithAttributes(target)
			flying := 0
			states := map[string]int64{"available": 0, "warming": 0, "ejected": 0}
			for _, in := range s.Instances {
				flying += in.InFlight
				states[in.State()]++
			}
			for state, n := range states {
				o.ObserveInt64(instances, n, metric.WithAttributes(target, attribute.String("state", state)))
			}
			o.ObserveInt64(picks, int64(s.Picks), byTarget)
			o.ObserveInt64(inFlight, int64(flying), byTarget)
			panicking := int64(0)
			if s.Panic {
				panicking = 1
			}
			o.ObserveInt64(panics, panicking, byTarget)
			policy.observe(o, &s)
		}
		return nil
	}, append(observed, picks, instances, inFlight, panics)...)
	return err
}

// State is one word for how an instance is: its status where that is not healthy, else ejected, warming or available.
func (i *InstanceState) State() string {
	switch {
	case i.Status != StatusHealthy:
		return string(i.Status)
	case i.EjectedFor > 0:
		return "ejected"
	case i.Share < 1:
		return "warming"
	default:
		return "available"
	}
}

func (t *telemetry) close() {
	if t.observing != nil {
		_ = t.observing.Unregister() // nothing is left to do about a gauge that stays
	}
}
