package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/bannou-mesh/bannou/services/events/eventsapi"
)

// momentArgument reads a version, or an instant as a time or how long ago it was; "" is now.
func momentArgument(name, text string, now time.Time) (eventsapi.Moment, error) {
	if text == "" {
		return eventsapi.Moment{}, nil
	}
	if version, err := strconv.ParseInt(text, 10, 64); err == nil && version >= 0 {
		return eventsapi.Moment{Version: &version}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return eventsapi.Moment{Time: &at}, nil
	}
	past, err := time.ParseDuration(text)
	if err != nil || past < 0 {
		return eventsapi.Moment{}, usageError{fmt.Errorf("%s %q: give a version such as 3, a time as 2006-01-02T15:04:05Z, or how long ago as 90m or 2h", name, text)}
	}
	at := now.Add(-past)
	return eventsapi.Moment{Time: &at}, nil
}

type eventsAtCommand struct {
	nodeFlag
	outputFlag
	Stream string `arg:"" help:"Stream, as category/id."`
	At     string `arg:"" help:"Version, time as 2006-01-02T15:04:05Z, or how long ago, such as 2h."`
	Limit  int    `short:"n" default:"100" help:"How many of the last events are shown where the node knows no state."`
}

// Run shows the state where the node knows one, and otherwise the events that led up to then.
func (c *eventsAtCommand) Run(ctx context.Context, std *stdio) error {
	category, id, err := streamArgument(c.Stream)
	if err != nil {
		return err
	}
	at, err := momentArgument("the moment", c.At, time.Now())
	if err != nil {
		return err
	}
	client, err := c.events()
	if err != nil {
		return err
	}
	answer, err := decode[eventsapi.StreamAtResponse](read(client.StreamAt(ctx, eventsapi.StreamAtRequest{Category: category, ID: id, At: at})))
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(std.out, answer)
	}
	if answer.Last == nil {
		_, err := fmt.Fprintf(std.out, "%s did not exist then\n", printable(c.Stream))
		return err
	}
	if _, err := fmt.Fprintf(std.out, "version %d, since %s\n", answer.Version, answer.Last.RecordedAt.UTC().Format(time.RFC3339Nano)); err != nil {
		return err
	}
	if answer.State != nil {
		_, err := fmt.Fprintln(std.out, printable(compact(answer.State)))
		return err
	}
	limit := min(max(c.Limit, 1), 1000)
	from := max(answer.Version-int64(limit)+1, 1)
	limit = int(answer.Version - from + 1)
	page, err := decode[eventsapi.ReadEventsResponse](read(client.ReadEvents(ctx, eventsapi.ReadEventsRequest{Category: category, ID: id, From: from, Limit: &limit})))
	if err != nil {
		return err
	}
	return printEvents(std, c.outputFlag, page.Events, true)
}

type eventsDiffCommand struct {
	nodeFlag
	outputFlag
	Stream string `arg:"" help:"Stream, as category/id."`
	From   string `arg:"" help:"Version, time as 2006-01-02T15:04:05Z, or how long ago, such as 2h."`
	To     string `arg:"" optional:"" help:"The later one. Default: now."`
	Limit  int    `short:"n" default:"100" help:"How many events are shown at most, up to 1000."`
}

func (c *eventsDiffCommand) Run(ctx context.Context, std *stdio) error {
	category, id, err := streamArgument(c.Stream)
	if err != nil {
		return err
	}
	now := time.Now()
	from, err := momentArgument("the first moment", c.From, now)
	if err != nil {
		return err
	}
	to, err := momentArgument("the second moment", c.To, now)
	if err != nil {
		return err
	}
	client, err := c.events()
	if err != nil {
		return err
	}
	answer, err := decode[eventsapi.DiffStreamResponse](read(client.DiffStream(ctx, eventsapi.DiffStreamRequest{Category: category, ID: id, From: from, To: to, Limit: &c.Limit})))
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(std.out, answer)
	}
	if _, err := fmt.Fprintf(std.out, "version %d to %d\n", answer.From, answer.To); err != nil {
		return err
	}
	if err := printEvents(std, c.outputFlag, answer.Events, true); err != nil {
		return err
	}
	if answer.Next > 0 {
		if _, err := fmt.Fprintf(std.err, "more: begin with version %d\n", answer.Next-1); err != nil {
			return err
		}
	}
	if answer.Changes == nil {
		return nil
	}
	var t table
	t.row("MEMBER", "BEFORE", "AFTER")
	for _, change := range *answer.Changes {
		t.row(change.Path, compact(change.Before), compact(change.After))
	}
	return t.write(std.out)
}

type eventsEraseCommand struct {
	nodeFlag
	outputFlag
	Subject string `arg:"" help:"Whom the personal members are about, as events were appended with it; a stream as category/id where none was named."`
	Yes     bool   `short:"y" help:"Do not ask."`
}

// Run asks first: it cannot be undone.
func (c *eventsEraseCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.events()
	if err != nil {
		return err
	}
	if !c.Yes {
		if err := confirm(std, fmt.Sprintf("make what events say of %q unreadable for good?", printable(c.Subject))); err != nil {
			return err
		}
	}
	answer, err := decode[eventsapi.EraseSubjectResponse](read(client.EraseSubject(ctx, eventsapi.EraseSubjectRequest{Subject: c.Subject})))
	if err != nil {
		return err
	}
	if !answer.Erased {
		return errors.New("no event has anything personal of that subject: it was erased before, or events name it otherwise (by default a subject is a stream, as category/id)")
	}
	return c.print(std, answer, func(t *table) {
		t.line("erased; other nodes may read it for 10 seconds more. Projections and copies that were made of it have to be made anew")
	})
}

type eventsRewrapCommand struct {
	nodeFlag
	outputFlag
}

func (c *eventsRewrapCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.events()
	if err != nil {
		return err
	}
	answer, err := decode[eventsapi.RewrapResponse](read(client.RewrapKeys(ctx, eventsapi.RewrapRequest{})))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		t.line(fmt.Sprintf("%d keys were wrapped anew; all are wrapped with the node's first master key now", answer.Keys))
	})
}

type eventsParkedCommand struct {
	List    eventsParkedListCommand    `cmd:"" help:"List the streams that a subscription has set aside, since an event of each could not be handled."`
	Release eventsParkedReleaseCommand `cmd:"" help:"Have it go on with one, for instance once what was wrong is mended."`
}

type eventsParkedListCommand struct {
	nodeFlag
	outputFlag
	Subscription string `arg:"" help:"Name of the subscription."`
}

func (c *eventsParkedListCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.events()
	if err != nil {
		return err
	}
	answer, err := decode[eventsapi.ListParkedResponse](read(client.ListParked(ctx, eventsapi.ListParkedRequest{Subscription: c.Subscription})))
	if err != nil {
		return err
	}
	now := time.Now()
	return c.print(std, answer, func(t *table) {
		t.row("STREAM", "VERSION", "PARKED", "STATE", "FAILURE")
		for _, p := range answer.Streams {
			state := "parked"
			if p.Released {
				state = "released"
			}
			t.row(p.Category+"/"+p.ID, p.Version, ago(p.ParkedAt, now), state, shortened(p.Failure))
		}
	})
}

type eventsParkedReleaseCommand struct {
	nodeFlag
	outputFlag
	Subscription string `arg:"" help:"Name of the subscription."`
	Stream       string `arg:"" help:"Stream, as category/id."`
	Skip         bool   `help:"Pass over the event that could not be handled."`
}

func (c *eventsParkedReleaseCommand) Run(ctx context.Context, std *stdio) error {
	category, id, err := streamArgument(c.Stream)
	if err != nil {
		return err
	}
	client, err := c.events()
	if err != nil {
		return err
	}
	answer, err := decode[eventsapi.ReleaseParkedResponse](read(client.ReleaseParked(ctx,
		eventsapi.ReleaseParkedRequest{Subscription: c.Subscription, Category: category, ID: id, Skip: c.Skip})))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		t.line("released; `bannou events parked list` shows it until all its events are handled")
	})
}
