package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
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

// Run prints each event as it comes: topic and body, or with -o json one object a line that has its properties too.
func (c *tailCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.messaging()
	if err != nil {
		return err
	}
	res, err := client.TailTopic(ctx, messagingapi.TailTopicRequest{Topic: c.Topic})
	if err != nil || res.StatusCode/100 != 2 {
		_, err = read(res, err)
		return err
	}
	defer res.Body.Close()

	seen := 0
	for e, err := range streamed(res.Body) {
		if ctx.Err() != nil {
			return nil // asked to end
		}
		if err != nil {
			return fmt.Errorf("the stream broke off: %w", err)
		}
		if err := c.show(std, e); err != nil {
			return err
		}
		if seen++; seen == c.Count {
			return nil
		}
	}
	return errors.New("the node ended the stream")
}

// A streamedEvent is one event of the stream.
type streamedEvent struct {
	Topic     string          `json:"topic"`
	Type      string          `json:"type,omitempty"`
	MessageID string          `json:"messageId,omitempty"`
	Event     json.RawMessage `json:"event"`
}

func (c *tailCommand) show(std *stdio, e streamedEvent) error {
	if !json.Valid(e.Event) { // what another program published need not be JSON
		quoted, err := json.Marshal(string(e.Event))
		if err != nil {
			return err
		}
		e.Event = quoted
	}
	if c.Output != "json" {
		_, err := fmt.Fprintln(std.out, printable(e.Topic+" "+compact(e.Event)))
		return err
	}
	line := json.NewEncoder(std.out)
	line.SetEscapeHTML(false)
	return line.Encode(e)
}

// streamed reads server-sent events until the stream ends. Its last error, if any, is what the stream broke off with.
func streamed(from io.Reader) iter.Seq2[streamedEvent, error] {
	return func(yield func(streamedEvent, error) bool) {
		lines := bufio.NewScanner(from)
		lines.Buffer(nil, maxEventLine)
		var e streamedEvent
		var data []string
		for lines.Scan() {
			field, value, _ := strings.Cut(lines.Text(), ":")
			value = strings.TrimPrefix(value, " ")
			switch {
			case field == "topic":
				e.Topic = value
			case field == "event":
				e.Type = value
			case field == "id":
				e.MessageID = value
			case field == "data":
				data = append(data, value)
			case lines.Text() == "" && len(data) > 0: // the end of an event; others end comments
				e.Event = json.RawMessage(strings.Join(data, "\n"))
				if !yield(e, nil) {
					return
				}
				e, data = streamedEvent{}, nil
			}
		}
		if err := lines.Err(); err != nil {
			yield(e, err)
		}
	}
}
