package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
)

// maxEventLine is the longest line of a stream: an event of 16 MiB.
const maxEventLine = 16 << 20

type tailCommand struct {
	nodeFlag
	outputFlag
	Topic string `arg:"" help:"Topic, or a pattern: * is one word, # any number of them."`
	Count int    `short:"n" help:"End after this many events; 0 means never."`
}

// Run prints each event as it comes: one JSON object a line with -o json, otherwise after its topic.
func (c *tailCommand) Run(ctx context.Context, std *stdio) error {
	base, err := c.base()
	if err != nil {
		return err
	}
	client, err := messagingapi.NewClient(base)
	if err != nil {
		return err
	}
	res, err := client.TailTopic(ctx, messagingapi.TailTopicRequest{Topic: c.Topic})
	if err != nil || res.StatusCode/100 != 2 {
		_, err = read(res, err)
		return err
	}
	defer res.Body.Close()

	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxEventLine)
	var data []string
	for seen := 0; lines.Scan(); {
		line := lines.Text()
		if d, ok := strings.CutPrefix(line, "data:"); ok {
			data = append(data, strings.TrimPrefix(d, " "))
		}
		if line != "" || len(data) == 0 {
			continue
		}
		fmt.Fprintln(std.out, printable(strings.Join(data, " ")))
		data = data[:0]
		if seen++; seen == c.Count {
			return nil
		}
	}
	if ctx.Err() != nil {
		return nil // asked to end
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the stream broke off: %w", err)
	}
	return fmt.Errorf("the node ended the stream")
}
