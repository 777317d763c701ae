package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/services/events/eventsapi"
)

type eventsCommand struct {
	Append  eventsAppendCommand  `cmd:"" help:"Append an event to a stream."`
	Read    eventsReadCommand    `cmd:"" help:"Print events of the log, of a category or of a stream."`
	Tail    eventsTailCommand    `cmd:"" help:"Print events as they are appended."`
	Streams eventsStreamsCommand `cmd:"" help:"List the streams of a category."`
	At      eventsAtCommand      `cmd:"" help:"Show a stream as it was at a version or an instant."`
	Diff    eventsDiffCommand    `cmd:"" help:"Show what changed in a stream between two versions or instants."`
	Close   eventsCloseCommand   `cmd:"" help:"End a stream: nothing can be appended to it any more."`
	Archive eventsArchiveCommand `cmd:"" help:"Move the data of a closed stream to the archive. It is read as before."`
	Erase   eventsEraseCommand   `cmd:"" help:"Destroy the key of a person: what of events is personal can never be read again."`
	Rewrap  eventsRewrapCommand  `cmd:"" help:"Wrap the keys of persons with the node's first master key, so that an older one can be retired."`
	Parked  eventsParkedCommand  `cmd:"" help:"List and release streams that subscriptions have set aside."`
}

// streamArgument is a stream as people write it.
func streamArgument(text string) (category, id string, err error) {
	category, id, found := strings.Cut(text, "/")
	if !found || category == "" || id == "" {
		return "", "", usageError{fmt.Errorf("%q is no stream: write it as category/id, as in order/o-1", text)}
	}
	return category, id, nil
}

// partArgument is a part of the log: nothing for all of it, a category, or a stream.
func partArgument(text string) (category, id string, err error) {
	if !strings.Contains(text, "/") {
		return text, "", nil
	}
	return streamArgument(text)
}

type eventsAppendCommand struct {
	nodeFlag
	outputFlag
	Stream      string   `arg:"" help:"Stream, as category/id."`
	Type        string   `arg:"" help:"What has happened, as opened."`
	Data        string   `arg:"" help:"JSON of the event; - reads it from standard input."`
	Expected    string   `default:"any" help:"Version that the stream must have: a number, none for a stream that must not exist, or any."`
	ID          string   `help:"UUID of the event: an append with the same one is made once."`
	Schema      int      `default:"1" help:"Version of the form of the data."`
	Correlation string   `help:"Correlation id, shared by all that one request led to."`
	Causation   string   `help:"Id of the message or event that led to it."`
	Actor       string   `help:"Who asked for it."`
	Personal    []string `help:"Members of the data that are about a person, as JSON pointers such as /name: they are encrypted until the subject is erased."`
	Subject     string   `help:"Whom they are about. Default: the stream."`
}

func (c *eventsAppendCommand) Run(ctx context.Context, std *stdio) error {
	category, id, err := streamArgument(c.Stream)
	if err != nil {
		return err
	}
	data, err := jsonArgument(std, "the event", c.Data)
	if err != nil {
		return err
	}
	expected := json.RawMessage(strconv.Quote(c.Expected))
	if _, err := strconv.ParseInt(c.Expected, 10, 64); err == nil {
		expected = json.RawMessage(c.Expected)
	} else if c.Expected != "any" && c.Expected != "none" {
		return usageError{fmt.Errorf("--expected %q: give the version that the stream must have as a number, none, or any", c.Expected)}
	}
	client, err := c.events()
	if err != nil {
		return err
	}
	answer, err := decode[eventsapi.AppendEventsResponse](read(client.AppendEvents(ctx, eventsapi.AppendEventsRequest{Streams: []eventsapi.StreamAppend{{
		Category: category, ID: id, Expected: expected, Events: []eventsapi.NewEvent{{
			ID: c.ID, Type: c.Type, Schema: c.Schema, Data: data, Personal: eventsapi.PersonalMembers{Members: c.Personal, Subject: c.Subject},
			Metadata: eventsapi.EventMetadata{CorrelationID: c.Correlation, CausationID: c.Causation, Actor: c.Actor},
		}},
	}}})))
	if err != nil {
		return err
	}
	if len(answer.Streams) != 1 {
		return errors.New("the node's answer names no stream: is it of another version?")
	}
	appended := answer.Streams[0]
	return c.print(std, appended, func(t *table) {
		text := fmt.Sprintf("version %d of %s, position %d", appended.Version, printable(c.Stream), appended.Position)
		if appended.Repeated {
			text += " (it was there already)"
		}
		t.line(text)
	})
}

type eventsReadCommand struct {
	nodeFlag
	outputFlag
	Part     string `arg:"" optional:"" help:"Stream as category/id, or category. Default: the whole log."`
	From     int64  `help:"First position, or version of a stream. Default: the beginning, or backward the end."`
	Backward bool   `help:"The newest first."`
	Limit    int    `short:"n" default:"100" help:"How many at most; 0 for all."`
}

// Run reads page by page, so that what is printed need not fit into memory. With -o json each event is one line.
func (c *eventsReadCommand) Run(ctx context.Context, std *stdio) error {
	category, id, err := partArgument(c.Part)
	if err != nil {
		return err
	}
	if c.Limit < 0 || c.From < 0 {
		return usageError{errors.New("--from and --limit are 0 or above")}
	}
	client, err := c.events()
	if err != nil {
		return err
	}
	printed := 0
	for from := c.From; ; {
		limit := 1000
		if c.Limit > 0 {
			limit = min(limit, c.Limit-printed)
		}
		page, err := decode[eventsapi.ReadEventsResponse](read(client.ReadEvents(ctx, eventsapi.ReadEventsRequest{
			Category: category, ID: id, From: from, Backward: c.Backward, Limit: &limit})))
		if err != nil {
			return err
		}
		if err := printEvents(std, c.outputFlag, page.Events, printed == 0); err != nil {
			return err
		}
		if printed += len(page.Events); page.Next == 0 || c.Limit > 0 && printed >= c.Limit {
			return c.more(std, page.Next)
		}
		from = page.Next
	}
}

// more says on standard error how to go on, which is no part of the output.
func (c *eventsReadCommand) more(std *stdio, next int64) error {
	if next == 0 || c.Output == "json" {
		return nil
	}
	_, err := fmt.Fprintf(std.err, "more: --from %d, or --limit 0 for all\n", next)
	return err
}

// printEvents prints one event a line: columns for people, JSON for programs.
func printEvents(std *stdio, o outputFlag, events []eventsapi.RecordedEvent, first bool) error {
	if o.Output == "json" {
		for i := range events {
			if err := printLine(std.out, &events[i]); err != nil {
				return err
			}
		}
		return nil
	}
	var t table
	if first {
		t.row("POSITION", "STREAM", "VERSION", "TYPE", "AT", "DATA")
	}
	for i := range events {
		e := &events[i]
		t.row(e.Position, e.Category+"/"+e.Stream, e.Version, e.Type, e.RecordedAt.UTC().Format(time.RFC3339Nano), dataOf(e))
	}
	return t.write(std.out)
}

// dataOf is an event's data on one line, and what of it was erased.
func dataOf(e *eventsapi.RecordedEvent) string {
	text := compact(e.Data)
	if len(e.Erased) > 0 {
		text += " (erased: " + strings.Join(e.Erased, " ") + ")"
	}
	return text
}

func printLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

type eventsTailCommand struct {
	nodeFlag
	outputFlag
	Part  string `arg:"" optional:"" help:"Stream as category/id, or category. Default: the whole log."`
	From  *int64 `help:"First position, or version of a stream; 0 for all that there is. Default: what comes next."`
	Count int    `short:"n" help:"End after this many events; 0 means never."`
}

// Run prints each event as it comes: one line, with -o json of JSON.
func (c *eventsTailCommand) Run(ctx context.Context, std *stdio) error {
	category, id, err := partArgument(c.Part)
	if err != nil {
		return err
	}
	client, err := c.events()
	if err != nil {
		return err
	}
	res, err := client.SubscribeEvents(ctx, nil, eventsapi.SubscribeEventsRequest{Category: category, ID: id, From: c.From})
	if err != nil || res.StatusCode/100 != 2 {
		_, err = read(res, err)
		return err
	}
	defer res.Body.Close()
	seen, last := 0, ""
	for frame, err := range streamed(res.Body) {
		if ctx.Err() != nil {
			return nil // asked to end
		}
		if err != nil {
			return fmt.Errorf("the stream broke off%s: %w", goOn(last), err)
		}
		e, err := decode[eventsapi.RecordedEvent](frame.Event, nil)
		if err != nil {
			return err
		}
		if err := c.show(std, &e); err != nil {
			return err
		}
		last = frame.MessageID
		if seen++; seen == c.Count {
			return nil
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return errors.New("the node ended the stream" + goOn(last))
}

// goOn says where to begin again behind the last event that was seen.
func goOn(last string) string {
	n, err := strconv.ParseInt(last, 10, 64)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("; go on with --from %d", n+1)
}

func (c *eventsTailCommand) show(std *stdio, e *eventsapi.RecordedEvent) error {
	if c.Output == "json" {
		return printLine(std.out, e)
	}
	_, err := fmt.Fprintln(std.out, printable(fmt.Sprintf("%d %s/%s %d %s %s", e.Position, e.Category, e.Stream, e.Version, e.Type, dataOf(e))))
	return err
}

type eventsStreamsCommand struct {
	nodeFlag
	outputFlag
	Category string `arg:"" help:"Category of the streams."`
	After    string `help:"Go on behind this id."`
	Limit    int    `short:"n" default:"100" help:"How many, up to 1000."`
}

func (c *eventsStreamsCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.events()
	if err != nil {
		return err
	}
	answer, err := decode[eventsapi.ListStreamsResponse](read(client.ListStreams(ctx, eventsapi.ListStreamsRequest{Category: c.Category, After: c.After, Limit: &c.Limit})))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		t.row("STREAM", "VERSION")
		for _, s := range answer.Streams {
			t.row(s.ID, s.Version)
		}
		if answer.Next != "" {
			t.line("more: --after " + printable(strconv.Quote(answer.Next)))
		}
	})
}
