package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/bannou-mesh/bannou/services/events/eventsapi"
)

type eventsCloseCommand struct {
	nodeFlag
	outputFlag
	Stream   string `arg:"" help:"Stream, as category/id."`
	Expected *int64 `help:"Version that the stream must have. Default: any."`
	Yes      bool   `short:"y" help:"Do not ask."`
}

// Run asks first: a stream cannot be opened again.
func (c *eventsCloseCommand) Run(ctx context.Context, std *stdio) error {
	category, id, err := streamArgument(c.Stream)
	if err != nil {
		return err
	}
	client, err := c.events()
	if err != nil {
		return err
	}
	if !c.Yes {
		if err := confirm(std, fmt.Sprintf("close stream %s for good?", printable(c.Stream))); err != nil {
			return err
		}
	}
	request := eventsapi.CloseStreamRequest{Category: category, ID: id}
	if c.Expected != nil {
		request.Expected = json.RawMessage(strconv.FormatInt(*c.Expected, 10))
	}
	answer, err := decode[eventsapi.StreamAppended](read(client.CloseStream(ctx, request)))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		t.line(fmt.Sprintf("closed: version %d, its last, is that of its end", answer.Version))
	})
}

type eventsArchiveCommand struct {
	nodeFlag
	outputFlag
	Stream string `arg:"" help:"Stream that is closed, as category/id."`
}

func (c *eventsArchiveCommand) Run(ctx context.Context, std *stdio) error {
	category, id, err := streamArgument(c.Stream)
	if err != nil {
		return err
	}
	client, err := c.events()
	if err != nil {
		return err
	}
	answer, err := decode[eventsapi.ArchiveStreamResponse](read(client.ArchiveStream(ctx, eventsapi.ArchiveStreamRequest{Category: category, ID: id})))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		t.line(fmt.Sprintf("%d events were moved to the archive", answer.Moved))
	})
}
