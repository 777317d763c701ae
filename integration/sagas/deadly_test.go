package sagas_test

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/sagas"
)

// A point is where a process is killed: at the nth operation of a kind for an instance, before or after it.
type point struct {
	Operation string // append, publish, call, acknowledge; of services save and answer too
	N         int    // from 1
	After     bool
}

// A killer counts operations for an instance, and kills its own process at one. It does so once it is armed.
type killer struct {
	key   []byte // empty: of any instance
	point point
	armed atomic.Bool
	count atomic.Int64
}

// around does an operation, unless that is where the process ends.
func (k *killer) around(operation string, subject []byte, do func() error) error {
	if !k.armed.Load() || k.point.Operation != operation || !bytes.Contains(subject, k.key) || k.count.Add(1) != int64(k.point.N) {
		return do()
	}
	if !k.point.After {
		die()
	}
	_ = do()
	die()
	return nil
}

// die ends the process as a power failure does.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal comes
}

// A deadlyLog is an event store that kills around appends.
type deadlyLog struct {
	eventstore.Engine
	killer *killer
}

func (l deadlyLog) Append(ctx context.Context, appends []eventstore.Append) (appended []eventstore.Appended, err error) {
	err = l.killer.around("append", []byte(appends[0].Stream.ID), func() error {
		appended, err = l.Engine.Append(ctx, appends)
		return err
	})
	return appended, err
}

// A deadlyBus kills around publishing and acknowledging.
type deadlyBus struct {
	bus.Driver
	killer *killer
}

func (d deadlyBus) Begin(ctx context.Context, m *bus.Message) (confirm func() error) {
	key := []byte(m.Headers[bus.HeaderPartitionKey])
	_ = d.killer.around("publish", key, func() error {
		confirm = d.Driver.Begin(ctx, m)
		if d.killer.point.After && bytes.Contains(key, d.killer.key) {
			if err := confirm(); err != nil { // it dies when the broker has it
				return err
			}
			confirm = func() error { return nil }
		}
		return nil
	})
	return confirm
}

func (d deadlyBus) Publish(ctx context.Context, m *bus.Message) error {
	return d.killer.around("publish", []byte(m.Headers[bus.HeaderPartitionKey]), func() error { return d.Driver.Publish(ctx, m) })
}

func (d deadlyBus) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) {
	c, err := d.Driver.Subscribe(ctx, q)
	if err != nil {
		return nil, err
	}
	deadly := &deadlyConsumer{Consumer: c, deliveries: make(chan bus.Delivery)}
	go func() {
		defer close(deadly.deliveries)
		for delivery := range c.Deliveries() {
			deadly.deliveries <- deadlyDelivery{delivery, d.killer}
		}
	}()
	return deadly, nil
}

type deadlyConsumer struct {
	bus.Consumer
	deliveries chan bus.Delivery
}

func (c *deadlyConsumer) Deliveries() <-chan bus.Delivery { return c.deliveries }

type deadlyDelivery struct {
	bus.Delivery
	killer *killer
}

func (d deadlyDelivery) Ack() error {
	return d.killer.around("acknowledge", d.Message().Body, d.Delivery.Ack)
}

// A deadlyCaller kills around calls.
type deadlyCaller struct {
	sagas.Caller
	killer *killer
}

func (c deadlyCaller) Call(ctx context.Context, target, method, key string, body jsontext.Value) (answer jsontext.Value, err error) {
	err = c.killer.around("call", body, func() error {
		answer, err = c.Caller.Call(ctx, target, method, key, body)
		return err
	})
	return answer, err
}

// A deadlyState kills around changes of stores.
type deadlyState struct {
	state.Driver
	killer *killer
}

func (d deadlyState) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	engine, err := d.Driver.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	deadly := deadlyEngine{engine, d.killer}
	if querier, is := engine.(state.Querier); is {
		return struct {
			deadlyEngine
			state.Querier
		}{deadly, querier}, nil
	}
	return deadly, nil
}

type deadlyEngine struct {
	state.Engine
	killer *killer
}

func (e deadlyEngine) Apply(ctx context.Context, changes []state.Change) (outcomes []state.Outcome, err error) {
	err = e.killer.around("save", nil, func() error {
		outcomes, err = e.Engine.Apply(ctx, changes)
		return err
	})
	return outcomes, err
}

// answers kills around the answers of requests: what was asked is done, and who asked does not hear of it.
func (k *killer) answers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(lookHeader) != "" {
			next.ServeHTTP(w, r)
			return
		}
		kept := httptest.NewRecorder()
		next.ServeHTTP(kept, r)
		_ = k.around("answer", nil, func() error {
			maps.Copy(w.Header(), kept.Header())
			w.WriteHeader(kept.Code)
			_, err := w.Write(kept.Body.Bytes())
			return err
		})
	})
}
