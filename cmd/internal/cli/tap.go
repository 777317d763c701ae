package cli

import (
	"context"
	"time"

	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
)

type tapCommand struct {
	Create tapCreateCommand `cmd:"" help:"Begin to copy the events of a topic to another exchange."`
	Delete tapDeleteCommand `cmd:"" help:"End a tap and remove its queue."`
	List   tapListCommand   `cmd:"" help:"List the durable taps, and the node's others."`
}

type tapCreateCommand struct {
	nodeFlag
	outputFlag
	Topic    string `arg:"" help:"Topic, or a pattern: * is one word, # any number of them."`
	Exchange string `arg:"" help:"Exchange that receives the copies."`
	Durable  bool   `help:"Let the tap survive the restart of broker and node."`
}

func (c *tapCreateCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.messaging()
	if err != nil {
		return err
	}
	answer, err := decode[messagingapi.CreateTapResponse](read(client.CreateTap(ctx, messagingapi.CreateTapRequest{
		Topic: c.Topic, Exchange: c.Exchange, Options: messagingapi.TapOptions{Durable: c.Durable}})))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) { t.line("created tap " + printable(answer.TapID)) })
}

type tapDeleteCommand struct {
	nodeFlag
	outputFlag
	Tap string `arg:"" help:"Id of the tap."`
}

func (c *tapDeleteCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.messaging()
	if err != nil {
		return err
	}
	answer, err := decode[messagingapi.RemoveTapResponse](read(client.RemoveTap(ctx, messagingapi.RemoveTapRequest{TapID: c.Tap})))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) { t.line("deleted") })
}

type tapListCommand struct {
	nodeFlag
	outputFlag
}

func (c *tapListCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.messaging()
	if err != nil {
		return err
	}
	answer, err := decode[messagingapi.ListTapsResponse](read(client.ListTaps(ctx)))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		t.row("TAP", "TOPIC", "EXCHANGE", "DURABLE", "CREATED")
		for _, tap := range answer.Taps {
			t.row(tap.TapID, tap.Topic, tap.Exchange, tap.Durable, tap.CreatedAt.Format(time.RFC3339))
		}
	})
}
