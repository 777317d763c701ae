package migration_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/bannou-mesh/bannou/cmd/program"
	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/problem"
)

// topic carries an order that was placed.
const topic = "order.placed"

// placedEvent is its event.
type placedEvent struct {
	events.Base

	Order   int64  `json:"order"`
	Account string `json:"account"`
}

func (*placedEvent) EventName() string { return "OrderPlacedEvent" }

// A change is one order as it changes the record of a key, and what all requests carry.
type change struct {
	Key   string `json:"key"`
	Order int64  `json:"order"`
}

// A record is a value: the orders that have changed it. A write that is lost takes the orders of others with it, one that is made twice shows.
type record struct {
	Orders []int64 `json:"orders"`
	Again  int64   `json:"again"` // how often one came that was there already
}

// A shopService is one of the four: orders calls stock and payments, payments calls the ledger; payments and the ledger hear of placed orders.
type shopService struct {
	host.Base
	name  string
	parts program.Parts
}

// storeOf is the name of a service's store.
func storeOf(service string) string { return service + "-records" }

// calls are whom a service calls to change its record, in this order, and by which key: "" is the order's own.
func calls(service string) []string {
	return map[string][]string{"orders": {"stock", "payments"}, "payments": {"ledger"}}[service]
}

// hears are the handlers of the services that hear of placed orders.
func hears(service string) string {
	return map[string]string{"payments": "invoice", "ledger": "book"}[service]
}

// runService is the program of a service.
func runService(name string) int {
	return program.Main(program.Program{
		Name:   name,
		Stores: []program.Store{{Name: storeOf(name)}},
		New: func(p program.Parts) (host.Service, error) {
			s := &shopService{name: name, parts: p}
			if hears(name) == "" {
				return s, nil
			}
			return s, bus.Handle(p.Bus, topic, hears(name), s.heard, bus.SubscriptionOptions{Service: name})
		},
	}, "story")
}

func (s *shopService) Name() string { return s.name }

func (s *shopService) Mount(mux *http.ServeMux) error {
	mux.HandleFunc("POST /"+s.name+"/open", answer(s.open))
	mux.HandleFunc("POST /"+s.name+"/read", answer(s.read))
	mux.HandleFunc("POST /"+s.name+"/change", answer(s.change))
	return nil
}

// answer makes a handler of a function.
func answer[Q, A any](f func(context.Context, *Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		request, err := jsonbody.Decode[Q](jsonbody.Limits{}, w, r)
		if err != nil {
			problem.Write(w, err)
			return
		}
		response, err := f(r.Context(), request)
		if err != nil {
			problem.Write(w, problem.New(problem.Unavailable, "%v", err))
			return
		}
		jsonbody.Write(w, response)
	}
}

// keys are what is opened or read.
type keys struct {
	Keys []string `json:"keys"`
}

// records are what was read, in the order of the keys.
type records struct {
	Records []record `json:"records"`
}

// open writes empty records, before anything else does.
func (s *shopService) open(ctx context.Context, k *keys) (struct{}, error) {
	store, err := s.store(ctx)
	for _, key := range k.Keys {
		if err == nil {
			_, err = store.Save(ctx, key, record{Orders: []int64{}})
		}
	}
	return struct{}{}, err
}

func (s *shopService) read(ctx context.Context, k *keys) (records, error) {
	var all records
	store, err := s.store(ctx)
	for _, key := range k.Keys {
		if err != nil {
			return all, err
		}
		var r record
		r, err = store.Get(ctx, key)
		all.Records = append(all.Records, r)
	}
	return all, err
}

// change calls those whom the service calls, changes its own record, and, of an order, tells of it. An answer says that all of it is done.
func (s *shopService) change(ctx context.Context, c *change) (struct{}, error) {
	ctx = mesh.WithIdempotencyKey(ctx, s.name+"-"+strconv.FormatInt(c.Order, 10))
	for _, callee := range calls(s.name) {
		if _, err := mesh.Invoke[*change, struct{}](ctx, s.parts.Mesh, callee, callee+"/change", c); err != nil {
			return struct{}{}, err
		}
	}
	if err := s.apply(ctx, c.Key, c.Order); err != nil || s.name != "orders" {
		return struct{}{}, err
	}
	_, err := s.parts.Bus.PublishWith(ctx, topic, &placedEvent{Order: c.Order, Account: c.Key}, bus.PublishOptions{PartitionKey: c.Key})
	return struct{}{}, err
}

// heard changes the record of those orders of an account that were heard of.
func (s *shopService) heard(ctx context.Context, e *placedEvent) error {
	return s.apply(ctx, hears(s.name)+"-"+e.Account, e.Order)
}

// apply enters an order into a record, by compare-and-set.
func (s *shopService) apply(ctx context.Context, key string, order int64) error {
	store, err := s.store(ctx)
	if err != nil {
		return err
	}
	for {
		now, err := store.GetWithETag(ctx, key)
		if err != nil {
			return fmt.Errorf("read %s of %s: %w", key, s.name, err)
		}
		r := now.Value
		if slices.Contains(r.Orders, order) {
			r.Again++
		} else {
			r.Orders = append(r.Orders, order)
		}
		_, err = store.TrySave(ctx, key, r, now.ETag)
		if errors.Is(err, state.ErrConflict) && ctx.Err() == nil {
			continue // somebody else was first
		}
		if err != nil {
			return fmt.Errorf("write %s of %s: %w", key, s.name, err)
		}
		return nil
	}
}

func (s *shopService) store(ctx context.Context) (*state.Store[record], error) {
	return state.Open[record](ctx, s.parts.Factory, storeOf(s.name))
}
