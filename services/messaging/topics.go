package messaging

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
)

// ListTopics is POST /messaging/list-topics.
func (s *Service) ListTopics(ctx context.Context, r messagingapi.ListTopicsRequestObject) (messagingapi.ListTopicsResponseObject, error) {
	var filter messagingapi.ListTopicsRequest
	if r.Body != nil {
		filter = *r.Body
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SubscribeTimeout)
	defer cancel()
	all, err := s.cfg.Bus.Topics(ctx)
	if err != nil {
		return nil, busProblem(err, "exchangeFilter")
	}
	slices.SortFunc(all, func(a, b bus.TopicInfo) int { return cmp.Compare(a.Name, b.Name) })
	topics := []messagingapi.TopicInfo{}
	for _, t := range all {
		empty := t.MessageCount == 0 && filter.IncludeEmpty != nil && !*filter.IncludeEmpty
		if empty || !strings.HasPrefix(t.Exchange, filter.ExchangeFilter) {
			continue
		}
		topics = append(topics, messagingapi.TopicInfo{Name: t.Name, MessageCount: t.MessageCount, ConsumerCount: t.ConsumerCount})
	}
	return messagingapi.ListTopics200JSONResponse{Topics: topics}, nil
}
