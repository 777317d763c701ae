package cli

import (
	"context"

	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
)

type topicsCommand struct {
	nodeFlag
	outputFlag
	Exchange string `help:"Only topics of exchanges whose name begins so."`
	Waiting  bool   `help:"Only topics with messages that wait."`
}

func (c *topicsCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.messaging()
	if err != nil {
		return err
	}
	empty := !c.Waiting
	answer, err := decode[messagingapi.ListTopicsResponse](read(
		client.ListTopics(ctx, messagingapi.ListTopicsRequest{ExchangeFilter: c.Exchange, IncludeEmpty: &empty})))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		t.row("TOPIC", "MESSAGES", "CONSUMERS")
		for _, topic := range answer.Topics {
			t.row(topic.Name, topic.MessageCount, topic.ConsumerCount)
		}
	})
}
