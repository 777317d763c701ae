package facade

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/facade/internal/daprpb"
)

// entryOf is a state item as the HTTP API has it.
func entryOf(item *daprpb.StateItem) entry {
	e := entry{Key: item.GetKey(), Value: item.GetValue(), Metadata: item.GetMetadata()}
	if item.GetEtag() != nil {
		e.ETag = &item.Etag.Value
	}
	e.Options.Concurrency = concurrencyOf(item.GetOptions())
	return e
}

func concurrencyOf(o *daprpb.StateOptions) string {
	switch o.GetConcurrency() {
	case daprpb.StateOptions_CONCURRENCY_FIRST_WRITE:
		return "first-write"
	case daprpb.StateOptions_CONCURRENCY_LAST_WRITE:
		return "last-write"
	case daprpb.StateOptions_CONCURRENCY_UNSPECIFIED:
	}
	return ""
}

func entriesOf(items []*daprpb.StateItem) []entry {
	list := make([]entry, len(items))
	for i, item := range items {
		list[i] = entryOf(item)
	}
	return list
}

func (s *Service) grpcGetState(ctx context.Context, asked *daprpb.GetStateRequest) (*daprpb.GetStateResponse, error) {
	found, err := s.readState(ctx, asked.GetStoreName(), asked.GetKey())
	if errors.Is(err, state.ErrNotFound) {
		return &daprpb.GetStateResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	answer := &daprpb.GetStateResponse{Data: found.Value, Etag: found.ETag}
	if !found.ExpiresAt.IsZero() {
		answer.Metadata = map[string]string{"ttlExpireTime": found.ExpiresAt.UTC().Format(time.RFC3339)}
	}
	return answer, nil
}

func (s *Service) grpcGetBulkState(ctx context.Context, asked *daprpb.GetBulkStateRequest) (*daprpb.GetBulkStateResponse, error) {
	found, err := s.readStates(ctx, asked.GetStoreName(), asked.GetKeys())
	if err != nil {
		return nil, err
	}
	answer := &daprpb.GetBulkStateResponse{Items: make([]*daprpb.BulkStateItem, len(found))}
	for i, item := range found {
		answer.Items[i] = &daprpb.BulkStateItem{Key: item.Key, Data: item.Data, Etag: item.ETag}
	}
	return answer, nil
}

func (s *Service) grpcSaveState(ctx context.Context, asked *daprpb.SaveStateRequest) (*emptypb.Empty, error) {
	return empty(s.writeState(ctx, asked.GetStoreName(), entriesOf(asked.GetStates()), nil))
}

func (s *Service) grpcDeleteState(ctx context.Context, asked *daprpb.DeleteStateRequest) (*emptypb.Empty, error) {
	etag := asked.GetEtag().GetValue()
	return empty(s.removeState(ctx, asked.GetStoreName(), asked.GetKey(), &etag, concurrencyOf(asked.GetOptions())))
}

func (s *Service) grpcDeleteBulkState(ctx context.Context, asked *daprpb.DeleteBulkStateRequest) (*emptypb.Empty, error) {
	for _, e := range entriesOf(asked.GetStates()) {
		if err := s.removeState(ctx, asked.GetStoreName(), e.Key, e.ETag, e.Options.Concurrency); err != nil {
			return nil, err
		}
	}
	return &emptypb.Empty{}, nil
}

func (s *Service) grpcTransactState(ctx context.Context, asked *daprpb.ExecuteStateTransactionRequest) (*emptypb.Empty, error) {
	ops := make([]operation, len(asked.GetOperations()))
	for i, o := range asked.GetOperations() {
		ops[i] = operation{Operation: o.GetOperationType(), Request: entryOf(o.GetRequest())}
	}
	return empty(s.changeStates(ctx, asked.GetStoreName(), ops, over(nil, asked.GetMetadata())))
}

func (s *Service) grpcQueryState(ctx context.Context, asked *daprpb.QueryStateRequest) (*daprpb.QueryStateResponse, error) {
	found, token, err := s.findStates(ctx, asked.GetStoreName(), []byte(asked.GetQuery()))
	if err != nil {
		return nil, err
	}
	answer := &daprpb.QueryStateResponse{Results: make([]*daprpb.QueryStateItem, len(found)), Token: token}
	for i, item := range found {
		answer.Results[i] = &daprpb.QueryStateItem{Key: item.Key, Data: item.Data, Etag: item.ETag}
	}
	return answer, nil
}

func (s *Service) grpcTryLock(ctx context.Context, asked *daprpb.TryLockRequest) (*daprpb.TryLockResponse, error) {
	expiry := time.Duration(asked.GetExpiryInSeconds()) * time.Second
	taken, err := s.tryLock(ctx, asked.GetStoreName(), asked.GetResourceId(), asked.GetLockOwner(), expiry)
	if err != nil {
		return nil, err
	}
	return &daprpb.TryLockResponse{Success: taken}, nil
}

func (s *Service) grpcUnlock(ctx context.Context, asked *daprpb.UnlockRequest) (*daprpb.UnlockResponse, error) {
	became, err := s.release(ctx, asked.GetStoreName(), asked.GetResourceId(), asked.GetLockOwner())
	if err != nil {
		return nil, err
	}
	return &daprpb.UnlockResponse{Status: daprpb.UnlockResponse_Status(became)}, nil
}
