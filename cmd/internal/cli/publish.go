package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
)

type publishCommand struct {
	nodeFlag
	outputFlag
	Topic string `arg:"" help:"Topic to publish on, such as account.created."`
	Event string `arg:"" default:"{}" help:"The event as a JSON object; - reads it from standard input. eventId and timestamp are added."`

	Key         string            `help:"Partition key: events with the same key are handled in order."`
	Priority    int               `help:"Priority from 0 to 9."`
	Expiration  time.Duration     `help:"How long the event may wait in a queue."`
	Correlation string            `help:"Correlation id."`
	Header      map[string]string `help:"Headers as name=value."`
	Mandatory   bool              `help:"Fail when no queue takes the event."`
}

func (c *publishCommand) Run(ctx context.Context, std *stdio) error {
	payload, err := jsonArgument(std, "the event", c.Event)
	if err != nil {
		return err
	}
	client, err := c.messaging()
	if err != nil {
		return err
	}
	options := messagingapi.PublishOptions{
		PartitionKey: c.Key, CorrelationID: c.Correlation, Headers: c.Header, Mandatory: c.Mandatory,
	}
	if c.Priority != 0 {
		options.Priority = &c.Priority
	}
	if c.Expiration != 0 {
		ms := c.Expiration.Milliseconds()
		if ms < 1 {
			return usageError{fmt.Errorf("--expiration=%v: it has to be a millisecond or more", c.Expiration)}
		}
		options.Expiration = &ms
	}
	answer, err := decode[messagingapi.PublishEventResponse](read(
		client.PublishEvent(ctx, messagingapi.PublishEventRequest{Topic: c.Topic, Payload: payload, Options: options})))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		if answer.Queued {
			t.line("queued " + answer.MessageID + " until the broker is back")
			return
		}
		t.line("published " + answer.MessageID)
	})
}
