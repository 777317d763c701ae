package facade

import (
	"context"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/bannou-mesh/bannou/services/facade/internal/daprpb"
)

func (s *Service) grpcGetMetadata(context.Context, *emptypb.Empty) (*daprpb.GetMetadataResponse, error) {
	m := s.metadata()
	answer := &daprpb.GetMetadataResponse{Id: m.ID, RuntimeVersion: m.RuntimeVersion, ExtendedMetadata: m.Extended}
	for _, c := range m.Components {
		answer.RegisteredComponents = append(answer.RegisteredComponents, &daprpb.RegisteredComponents{Name: c.Name, Type: c.Type, Version: c.Version, Capabilities: c.Capabilities})
	}
	for _, one := range m.Subscriptions {
		wanted := &daprpb.PubsubSubscription{PubsubName: one.PubSub, Topic: one.Topic, Metadata: one.Metadata, DeadLetterTopic: one.DeadLetter, Rules: &daprpb.PubsubSubscriptionRules{}}
		for _, rule := range one.Rules {
			wanted.Rules.Rules = append(wanted.Rules.Rules, &daprpb.PubsubSubscriptionRule{Match: rule.Match, Path: rule.Path})
		}
		answer.Subscriptions = append(answer.Subscriptions, wanted)
	}
	if m.App != nil {
		answer.AppConnectionProperties = &daprpb.AppConnectionProperties{Protocol: m.App.Protocol, ChannelAddress: m.App.Address}
	}
	return answer, nil
}

func (s *Service) grpcSetMetadata(_ context.Context, asked *daprpb.SetMetadataRequest) (*emptypb.Empty, error) {
	return empty(s.extend(asked.GetKey(), asked.GetValue()))
}

func (s *Service) grpcShutdown(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
	return empty(s.shut())
}

func (s *Service) grpcGetSecret(_ context.Context, asked *daprpb.GetSecretRequest) (*daprpb.GetSecretResponse, error) {
	values, err := s.secret(asked.GetStoreName(), asked.GetKey())
	if err != nil {
		return nil, err
	}
	return &daprpb.GetSecretResponse{Data: values}, nil
}

func (s *Service) grpcGetBulkSecret(_ context.Context, asked *daprpb.GetBulkSecretRequest) (*daprpb.GetBulkSecretResponse, error) {
	all, err := s.secrets(asked.GetStoreName())
	if err != nil {
		return nil, err
	}
	answer := &daprpb.GetBulkSecretResponse{Data: map[string]*daprpb.SecretResponse{}}
	for name, values := range all {
		answer.Data[name] = &daprpb.SecretResponse{Secrets: values}
	}
	return answer, nil
}
