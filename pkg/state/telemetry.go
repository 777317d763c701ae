package state

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// An operation is what metrics and the log of slow operations call a method of a store.
type operation uint8

const (
	opGet operation = iota
	opSave
	opTrySave
	opDelete
	opTryDelete
	opExists
	opGetBulk
	opSaveBulk
	opDeleteBulk
	opExistsBulk
	opTransact
	opQuery
	opCount
	opLen
	operations // how many there are
)

func (o operation) String() string {
	return [operations]string{
		"get", "save", "try_save", "delete", "try_delete", "exists", "get_bulk", "save_bulk", "delete_bulk",
		"exists_bulk", "transact", "query", "count", "len",
	}[o]
}

// metrics are the instruments that all stores of a factory share.
type metrics struct {
	operations metric.Int64Counter
	errors     metric.Int64Counter
	duration   metric.Float64Histogram
}

func newMetrics(provider metric.MeterProvider) (*metrics, error) {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/bannou-mesh/bannou/pkg/state")
	ops, err1 := meter.Int64Counter("bannou.state.operations", metric.WithUnit("{operation}"),
		metric.WithDescription("Operations on stores, by store and operation."))
	errs, err2 := meter.Int64Counter("bannou.state.errors", metric.WithUnit("{error}"),
		metric.WithDescription("Operations that failed, by store, operation and kind. An absent key is not a failure; a conflict is of kind conflict."))
	duration, err3 := meter.Float64Histogram("bannou.state.duration", metric.WithUnit("s"),
		metric.WithDescription("How long operations on stores took."),
		metric.WithExplicitBucketBoundaries(.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	return &metrics{operations: ops, errors: errs, duration: duration}, errors.Join(err1, err2, err3)
}

// A recorder measures the operations of one store.
type recorder struct {
	metrics *metrics
	labels  [operations]labels
	store   string
	backend string
	logger  *slog.Logger
	slow    time.Duration
}

// labels are those of one operation, as each instrument takes them: made once, as they are asked for at each call.
type labels struct {
	count    []metric.AddOption
	duration []metric.RecordOption
}

func newRecorder(m *metrics, cfg StoreConfig, o Options) *recorder {
	r := &recorder{metrics: m, store: cfg.Name, backend: cfg.Backend, logger: o.Logger, slow: o.SlowOperation}
	for op := range operations {
		set := metric.WithAttributeSet(attribute.NewSet(
			attribute.String("store", cfg.Name),
			attribute.String("backend", cfg.Backend),
			attribute.String("operation", op.String())))
		r.labels[op] = labels{count: []metric.AddOption{set}, duration: []metric.RecordOption{set}}
	}
	return r
}

// record runs one operation and measures it. The key is for the log of slow operations; bulk operations have none.
func (r *recorder) record(ctx context.Context, op operation, key string, run func() error) error {
	start := time.Now()
	err := run()
	took := time.Since(start)

	labels := &r.labels[op]
	r.metrics.operations.Add(ctx, 1, labels.count...)
	r.metrics.duration.Record(ctx, took.Seconds(), labels.duration...)
	if kind := errorKind(err); kind != "" {
		r.metrics.errors.Add(ctx, 1, labels.count[0], metric.WithAttributes(attribute.String("error.type", kind)))
	}
	if r.slow > 0 && took >= r.slow {
		r.logger.WarnContext(ctx, "slow state operation", "store", r.store, "backend", r.backend,
			"operation", op.String(), "key", key, "duration", took, "error", err)
	}
	return err
}

// errorKind names an error for the metric; empty for nil and for an absent key.
func errorKind(err error) string {
	switch {
	case err == nil, errors.Is(err, ErrNotFound):
		return ""
	case errors.Is(err, ErrConflict):
		return "conflict"
	case errors.Is(err, ErrOutcomeUnknown):
		return "outcome_unknown"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	case errors.Is(err, ErrCorrupt):
		return "corrupt"
	case errors.Is(err, ErrInvalid):
		return "invalid"
	case errors.Is(err, ErrTooLarge):
		return "too_large"
	case errors.Is(err, ErrFull):
		return "outbox_full"
	case errors.Is(err, ErrUnsupported):
		return "unsupported"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline_exceeded"
	default:
		return "other"
	}
}
