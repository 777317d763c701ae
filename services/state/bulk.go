package state

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
	"github.com/bannou-mesh/bannou/services/state/stateapi"
)

// bulkReading opens the store of a read of several keys and checks them.
func (s *Service) bulkReading(ctx context.Context, r *stateapi.BulkReadRequest) (*state.Store[json.RawMessage], error) {
	store, err := s.store(ctx, r.StoreName, guard.Read)
	if err != nil {
		return nil, err
	}
	if err := checkKeys("keys", r.Keys, false); err != nil {
		return nil, err
	}
	return reading(store, r.Options)
}

// bulkGetState is POST /state/bulk-get. A key that is named several times is read once.
func (s *Service) bulkGetState(ctx context.Context, r *stateapi.BulkReadRequest) (*stateapi.BulkGetStateResponse, error) {
	store, err := s.bulkReading(ctx, r)
	if err != nil {
		return nil, err
	}
	keys, at := once(r.Keys)
	entries, err := store.GetBulk(ctx, keys)
	if err != nil {
		return nil, err
	}
	items := make([]stateapi.BulkStateItem, len(r.Keys))
	size := 0
	for i, key := range r.Keys {
		e := &entries[at[i]]
		items[i] = stateapi.BulkStateItem{Key: key, Found: e.Found, Value: e.Value, Etag: e.ETag}
		size += len(e.Value)
	}
	if err := checkAnswer("keys", size); err != nil {
		return nil, err
	}
	return &stateapi.BulkGetStateResponse{Items: items}, nil
}

// once returns the keys without those that come again, and where among them each is.
func once(keys []string) (distinct []string, at []int) {
	distinct, at = make([]string, 0, len(keys)), make([]int, len(keys))
	places := make(map[string]int, len(keys))
	for i, key := range keys {
		place, again := places[key]
		if !again {
			place = len(distinct)
			places[key] = place
			distinct = append(distinct, key)
		}
		at[i] = place
	}
	return distinct, at
}

// bulkExistsState is POST /state/bulk-exists.
func (s *Service) bulkExistsState(ctx context.Context, r *stateapi.BulkReadRequest) (*stateapi.BulkExistsStateResponse, error) {
	store, err := s.bulkReading(ctx, r)
	if err != nil {
		return nil, err
	}
	exists, err := store.ExistsBulk(ctx, r.Keys)
	if err != nil {
		return nil, err
	}
	items := make([]stateapi.ExistsItem, len(exists))
	for i := range exists {
		items[i] = stateapi.ExistsItem{Key: r.Keys[i], Exists: exists[i]}
	}
	return &stateapi.BulkExistsStateResponse{Items: items}, nil
}

// bulkDeleteState is POST /state/bulk-delete.
func (s *Service) bulkDeleteState(ctx context.Context, r *stateapi.BulkKeysRequest) (*stateapi.BulkDeleteStateResponse, error) {
	store, err := s.store(ctx, r.StoreName, guard.Write)
	if err != nil {
		return nil, err
	}
	if err := checkKeys("keys", r.Keys, true); err != nil {
		return nil, err
	}
	made, err := store.DeleteBulk(ctx, r.Keys)
	if err != nil {
		return nil, err
	}
	results := make([]stateapi.DeleteResult, len(made))
	for i, m := range made {
		code, detail := failure(m.Err)
		results[i] = stateapi.DeleteResult{Key: m.Key, Deleted: m.Done, Code: code, Detail: detail}
	}
	return &stateapi.BulkDeleteStateResponse{Results: results}, nil
}

// bulkSaveState is POST /state/bulk-save.
func (s *Service) bulkSaveState(ctx context.Context, r *stateapi.BulkSaveStateRequest) (*stateapi.BulkSaveStateResponse, error) {
	store, err := s.store(ctx, r.StoreName, guard.Write)
	if err != nil {
		return nil, err
	}
	if r.Items == nil {
		return nil, problem.Missing("items")
	}
	if err := checkCount("items", len(r.Items)); err != nil {
		return nil, err
	}
	items := make([]state.Item[json.RawMessage], len(r.Items))
	seen := make(map[string]struct{}, len(items))
	for i, in := range r.Items {
		place := fmt.Sprintf("items[%d].", i)
		lives, err := checkSave(place, in.Key, in.Value, in.TTL, seen)
		if err != nil {
			return nil, err
		}
		items[i] = state.Item[json.RawMessage]{Key: in.Key, Value: in.Value, ETag: in.Etag, Expiry: lives}
	}
	made, err := store.SaveBulk(ctx, items)
	if err != nil {
		return nil, err
	}
	results := make([]stateapi.SaveResult, len(made))
	for i, m := range made {
		code, detail := failure(m.Err)
		results[i] = stateapi.SaveResult{Key: m.Key, Success: m.Err == nil, Etag: m.ETag, Code: code, Detail: detail}
	}
	return &stateapi.BulkSaveStateResponse{Results: results}, nil
}

// transactState is POST /state/transact.
func (s *Service) transactState(ctx context.Context, r *stateapi.TransactStateRequest) (*stateapi.TransactStateResponse, error) {
	store, err := s.store(ctx, r.StoreName, guard.Write)
	if err != nil {
		return nil, err
	}
	if r.Operations == nil {
		return nil, problem.Missing("operations")
	}
	if err := checkCount("operations", len(r.Operations)); err != nil {
		return nil, err
	}
	ops := make([]state.Op[json.RawMessage], len(r.Operations))
	seen := make(map[string]struct{}, len(ops))
	for i, in := range r.Operations {
		if ops[i], err = operation(fmt.Sprintf("operations[%d].", i), in, seen); err != nil {
			return nil, err
		}
	}
	made, err := store.Transact(ctx, ops)
	if err != nil {
		return nil, err
	}
	results := make([]stateapi.TransactResult, len(made))
	for i, m := range made {
		results[i] = stateapi.TransactResult{Key: m.Key, Etag: m.ETag}
	}
	return &stateapi.TransactStateResponse{Results: results}, nil
}

func operation(place string, in stateapi.TransactOperation, seen map[string]struct{}) (state.Op[json.RawMessage], error) {
	op := state.Op[json.RawMessage]{Key: in.Key, ETag: in.Etag}
	switch in.Operation {
	case stateapi.Save:
		lives, err := checkSave(place, in.Key, in.Value, in.TTL, seen)
		op.Value, op.Expiry = in.Value, lives
		return op, err
	case stateapi.Delete:
		op.Delete = true
		if in.Etag != nil && *in.Etag == "" {
			return op, problem.Invalid(place+"etag", "is empty: nothing can be removed on condition that it is absent")
		}
		return op, checkOnce(place+"key", in.Key, seen)
	case "":
		return op, problem.Missing(place + "operation")
	default:
		return op, problem.Invalid(place+"operation", "is %.64q, and has to be save or delete", string(in.Operation))
	}
}

// checkSave checks one save of several.
func checkSave(place, key string, value json.RawMessage, ttl *int64, seen map[string]struct{}) (state.Expiry, error) {
	if err := checkOnce(place+"key", key, seen); err != nil {
		return 0, err
	}
	if err := checkValue(place+"value", value); err != nil {
		return 0, err
	}
	return expiry(place+"ttl", ttl)
}

func checkOnce(member, key string, seen map[string]struct{}) error {
	if err := checkKey(member, key); err != nil {
		return err
	}
	if _, twice := seen[key]; twice {
		return problem.Invalid(member, "is a key that was named before")
	}
	seen[key] = struct{}{}
	return nil
}

// failure is why one change of several was not made.
func failure(err error) (code, detail string) {
	if err == nil {
		return "", ""
	}
	p := problem.From(stateProblem(err))
	return string(p.Code), p.Detail
}
