package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
)

type deadLettersCommand struct {
	List    deadLettersListCommand    `cmd:"" help:"List events that were given up."`
	Show    deadLettersShowCommand    `cmd:"" help:"Show one with its body."`
	Replay  deadLettersReplayCommand  `cmd:"" help:"Deliver them again, to the subscription that gave them up and to no other."`
	Discard deadLettersDiscardCommand `cmd:"" help:"Remove them for good."`
}

// letterFilter are the flags that say which dead letters are meant.
type letterFilter struct {
	Topic   string `help:"Only of this topic, or pattern: * is one word, # any number of them."`
	Queue   string `help:"Only of the subscription with this queue."`
	Handler string `help:"Only of this handler: the part of the queue's name after the topic."`
	Reason  string `help:"Only given up for this reason: max-retries-exceeded, permanent, undecodable, expired."`
	Error   string `help:"Only those whose last error contains this text."`
	Since   string `help:"Only given up since: a time as 2006-01-02T15:04:05Z, or how long ago, such as 2h."`
	Until   string `help:"Only given up before: a time, or how long ago."`
}

// request is the filter as the node takes it.
func (f letterFilter) request(now time.Time) (messagingapi.DeadLetterFilter, error) {
	r := messagingapi.DeadLetterFilter{Topic: f.Topic, Queue: f.Queue, Handler: f.Handler, Reason: f.Reason, ErrorContains: f.Error}
	var err error
	if r.Since, err = instant("--since", f.Since, now); err == nil {
		r.Until, err = instant("--until", f.Until, now)
	}
	return r, err
}

// instant reads a time or how long ago it was.
func instant(flag, text string, now time.Time) (string, error) {
	if text == "" {
		return "", nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at.Format(time.RFC3339Nano), nil
	}
	past, err := time.ParseDuration(text)
	if err != nil || past < 0 {
		return "", usageError{fmt.Errorf("%s %q: write a time as 2006-01-02T15:04:05Z, or how long ago as 90m or 2h", flag, text)}
	}
	return now.Add(-past).UTC().Format(time.RFC3339Nano), nil
}

type deadLettersListCommand struct {
	nodeFlag
	outputFlag
	letterFilter
	Limit  int    `short:"n" default:"100" help:"How many, up to 1000."`
	Oldest bool   `help:"The oldest first."`
	Cursor string `help:"Go on after the page before, with the cursor that it ended with."`
}

func (c *deadLettersListCommand) Run(ctx context.Context, std *stdio) error {
	filter, err := c.request(time.Now())
	if err != nil {
		return err
	}
	client, err := c.messaging()
	if err != nil {
		return err
	}
	request := messagingapi.ListDeadLettersRequest{Filter: filter, Limit: &c.Limit, Cursor: c.Cursor}
	if c.Oldest {
		request.Order = "oldest"
	}
	answer, err := decode[messagingapi.ListDeadLettersResponse](read(client.ListDeadLetters(ctx, request)))
	if err != nil {
		return err
	}
	now := time.Now()
	return c.print(std, answer, func(t *table) {
		t.row("ID", "TOPIC", "HANDLER", "REASON", "RETRIES", "GIVEN UP", "ERROR")
		for _, l := range answer.DeadLetters {
			t.row(l.ID, l.Topic, l.Handler, l.Reason, l.RetryCount, agoOrUnknown(l.DiscardedAt, now), shortened(l.Exception))
		}
		t.line(fmt.Sprintf("%d of %d (%d in the store)", len(answer.DeadLetters), answer.Matched, answer.Total))
		if answer.Cursor != "" && int64(len(answer.DeadLetters)) < answer.Matched {
			t.line("more: --cursor " + printable(answer.Cursor))
		}
	})
}

func agoOrUnknown(at *time.Time, now time.Time) string {
	if at == nil {
		return "unknown"
	}
	return ago(*at, now)
}

// shortened is the beginning of an error, for a row of a table.
func shortened(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

type deadLettersShowCommand struct {
	nodeFlag
	outputFlag
	ID string `arg:"" help:"Id of the dead letter."`
}

func (c *deadLettersShowCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.messaging()
	if err != nil {
		return err
	}
	l, err := decode[messagingapi.DeadLetter](read(client.GetDeadLetter(ctx, messagingapi.GetDeadLetterRequest{ID: c.ID})))
	if err != nil {
		return err
	}
	return c.print(std, l, func(t *table) {
		for _, cell := range [][2]string{
			{"ID", l.ID}, {"TOPIC", l.Topic}, {"EXCHANGE", l.Exchange}, {"QUEUE", l.Queue}, {"HANDLER", l.Handler}, {"REASON", l.Reason},
			{"ERROR", l.Exception}, {"RETRIES", fmt.Sprint(l.RetryCount)}, {"PUBLISHED", moment(l.QueuedAt)}, {"GIVEN UP", moment(l.DiscardedAt)},
			{"MESSAGE ID", l.MessageID}, {"TYPE", l.Type}, {"CONTENT TYPE", l.ContentType}, {"CORRELATION ID", l.CorrelationID},
			{"SIZE", fmt.Sprint(l.Size)}, {"BODY", compact(l.Body)}, {"BODY IN BASE64", l.BodyBase64},
		} {
			if cell[1] != "" {
				t.row(cell[0], cell[1])
			}
		}
		for name, value := range l.Headers {
			t.row("HEADER", name+"="+value)
		}
	})
}

func moment(at *time.Time) string {
	if at == nil {
		return ""
	}
	return at.Format(time.RFC3339)
}

// settleFlags are for what changes dead letters.
type settleFlags struct {
	nodeFlag
	outputFlag
	letterFilter
	IDs    []string `arg:"" optional:"" name:"id" help:"Ids of dead letters; or give a filter."`
	All    bool     `help:"Every dead letter there is."`
	DryRun bool     `help:"Only say how many it would be."`
	Actor  string   `help:"Who you are, for the event that tells of it."`
}

// asked is the request of the flags.
func (f *settleFlags) asked() (messagingapi.SettleDeadLettersRequest, error) {
	filter, err := f.request(time.Now())
	r := messagingapi.SettleDeadLettersRequest{Ids: f.IDs, Filter: filter, All: f.All, DryRun: f.DryRun, Actor: f.Actor}
	switch {
	case err != nil:
		return r, err
	case len(f.IDs) > 0 && (f.All || f.letterFilter != letterFilter{}):
		return r, usageError{errors.New("ids and a filter contradict each other: give one of them")}
	case len(f.IDs) == 0 && !f.All && f.letterFilter == letterFilter{}:
		return r, usageError{errors.New("name dead letters by their ids or by a filter, or give --all for every one")}
	}
	return r, nil
}

type deadLettersReplayCommand struct{ settleFlags }

// Run ends with 1 when some are dead letters still.
func (c *deadLettersReplayCommand) Run(ctx context.Context, std *stdio) error {
	request, err := c.asked()
	if err != nil {
		return err
	}
	client, err := c.messaging()
	if err != nil {
		return err
	}
	request.Progress = true
	answer, err := followed[messagingapi.ReplayDeadLettersResponse](std)(client.ReplayDeadLetters(ctx, request)) //nolint:bodyclose // followed closes it
	if err != nil {
		return err
	}
	return c.told(std, answer, "replayed", answer.Matched, answer.Replayed, answer.FailedCount, answer.Failed)
}

type deadLettersDiscardCommand struct {
	settleFlags
	Yes bool `short:"y" help:"Do not ask before more than one is removed."`
}

// Run asks before it removes many.
func (c *deadLettersDiscardCommand) Run(ctx context.Context, std *stdio) error {
	request, err := c.asked()
	if err != nil {
		return err
	}
	client, err := c.messaging()
	if err != nil {
		return err
	}
	if !c.Yes && !c.DryRun && len(c.IDs) != 1 {
		count := request
		count.DryRun = true
		would, err := decode[messagingapi.DiscardDeadLettersResponse](read(client.DiscardDeadLetters(ctx, count)))
		if err != nil {
			return err
		}
		if would.Matched > 1 {
			if err := confirm(std, fmt.Sprintf("remove %d dead letters for good?", would.Matched)); err != nil {
				return err
			}
		}
	}
	request.Progress = true
	answer, err := followed[messagingapi.DiscardDeadLettersResponse](std)(client.DiscardDeadLetters(ctx, request)) //nolint:bodyclose // followed closes it
	if err != nil {
		return err
	}
	return c.told(std, answer, "discarded", answer.Matched, answer.Discarded, answer.FailedCount, answer.Failed)
}

// told prints what was done. What stayed is an error, and so is an id that no dead letter has.
func (f *settleFlags) told(std *stdio, answer any, done string, matched, count, failed int64, reasons []messagingapi.DeadLetterFailure) error {
	if f.DryRun {
		done = "would be " + done
	}
	err := f.print(std, answer, func(t *table) {
		t.line(fmt.Sprintf("%d %s", count, done))
		for _, r := range reasons {
			t.row(r.ID, r.Reason)
		}
	})
	if err == nil && failed > 0 {
		return fmt.Errorf("%d are dead letters still", failed)
	}
	slices.Sort(f.IDs)
	if named := int64(len(slices.Compact(f.IDs))); err == nil && matched < named {
		return fmt.Errorf("%d of the ids given name no dead letter: bannou dead-letters list shows those there are", named-matched)
	}
	return err
}

// followed reads a stream of progress to its end, and gives the result that it ends with.
func followed[T any](std *stdio) func(*http.Response, error) (T, error) {
	return func(res *http.Response, err error) (T, error) {
		var result T
		if err != nil || res.StatusCode/100 != 2 {
			_, err = read(res, err)
			return result, err
		}
		defer res.Body.Close()
		bar := newProgress(std.err)
		defer bar.end()
		lines := json.NewDecoder(res.Body)
		for {
			var line messagingapi.DeadLetterProgress
			if err := lines.Decode(&line); err != nil {
				return result, fmt.Errorf("the node's answer broke off; what it has not done is there still: %w", err)
			}
			switch {
			case len(line.Problem) > 0:
				bar.end()
				var problem struct{ Status int }
				_ = json.Unmarshal(line.Problem, &problem) // what is no problem is shown as it is
				return result, refused(&http.Response{Status: http.StatusText(problem.Status), StatusCode: problem.Status}, line.Problem)
			case len(line.Result) > 0:
				return decode[T](line.Result, nil)
			}
			bar.show(line.Read, line.Total, fmt.Sprintf("%d done, %d failed", line.Done, line.Failed))
		}
	}
}
