package facade

import (
	"context"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/bannou-mesh/bannou/services/facade/internal/daprpb"
)

func (s *Service) grpcPublish(ctx context.Context, asked *daprpb.PublishEventRequest) (*emptypb.Empty, error) {
	return empty(s.publishOne(ctx, asked.GetPubsubName(), asked.GetTopic(), outgoing{
		contentType: asked.GetDataContentType(), data: asked.GetData(), metadata: over(nil, asked.GetMetadata()),
	}, incomingTrace(ctx)))
}

func (s *Service) grpcBulkPublish(ctx context.Context, asked *daprpb.BulkPublishRequest) (*daprpb.BulkPublishResponse, error) {
	request := over(nil, asked.GetMetadata())
	events := make([]outgoing, len(asked.GetEntries()))
	for i, e := range asked.GetEntries() {
		events[i] = outgoing{id: e.GetEntryId(), contentType: e.GetContentType(), data: e.GetEvent(), metadata: over(request, e.GetMetadata())}
	}
	failed, err := s.publishMany(ctx, asked.GetPubsubName(), asked.GetTopic(), events, incomingTrace(ctx))
	if err != nil {
		return nil, err
	}
	answer := &daprpb.BulkPublishResponse{}
	for _, f := range failed {
		answer.FailedEntries = append(answer.FailedEntries, &daprpb.BulkPublishResponseFailedEntry{EntryId: f.EntryID, Error: f.Error})
	}
	return answer, nil
}

func incomingTrace(ctx context.Context) traceContext {
	return traceContext{incoming(ctx, "traceparent"), incoming(ctx, "tracestate")}
}
