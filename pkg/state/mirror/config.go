package mirror

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A Counterpart is the other place of a store.
type Counterpart struct {
	// Driver keeps the other place. It belongs to the caller; once it is closed, the place is away. Required.
	Driver state.Driver

	// Store is the store's configuration there. Default: the name that it has here, and otherwise the driver's defaults.
	Store state.StoreConfig

	// Sample is the share of keys in use that are compared, from 0 to 1. Default: 1, all of them.
	Sample float64

	// Writes has each change carried to the other place too. It is for a place with rows of its own; one that shows the same rows needs
	// none, and takes no harm from it: what is equal is not written.
	Writes bool

	// ETags compares ETags too. They are equal in both places only where both are views of one row.
	ETags bool

	// NoExpiry leaves the expiries out, for a place that cannot tell them.
	NoExpiry bool

	// Queue is how many keys may wait to be compared or carried. Default: 10 000.
	Queue int

	// Timeout bounds each call of either place by the comparison. Default: 2 s.
	Timeout time.Duration
}

func (c Counterpart) complete(name string) (Counterpart, error) {
	c.Store.Name = cmp.Or(c.Store.Name, name)
	c.Store.Counterpart = true
	c.Sample = cmp.Or(c.Sample, 1)
	c.Queue = cmp.Or(c.Queue, 10_000)
	c.Timeout = cmp.Or(c.Timeout, 2*time.Second)
	switch {
	case c.Driver == nil:
		return c, fmt.Errorf("%w: the mirror of the store %q has no driver", state.ErrInvalid, name)
	case !(c.Sample > 0 && c.Sample <= 1): // NaN is neither
		return c, fmt.Errorf("%w: the mirror of the store %q compares a share of %g: choose from 0 to 1", state.ErrInvalid, name, c.Sample)
	case c.Queue < 1 || c.Timeout < 0:
		return c, fmt.Errorf("%w: the mirror of the store %q: its queue and its timeout are positive", state.ErrInvalid, name)
	}
	return c, nil
}

// Config says which stores of a driver have a counterpart.
type Config struct {
	// To is the counterpart of a store; false: it has none. Required.
	To func(store state.StoreConfig) (Counterpart, bool)

	// Ledger takes what is found. Default: one that nobody reads.
	Ledger *Ledger

	// Logger hears of differences, a line a second and store at most, with a digest of the key and never its value. Default: none.
	Logger *slog.Logger

	// MeterProvider receives bannou.state.mirror.compared and bannou.state.mirror.differences (by reason), in keys, by store. Default: none.
	MeterProvider metric.MeterProvider
}
