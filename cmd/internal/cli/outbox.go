package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
)

type outboxCommand struct {
	List    outboxListCommand    `cmd:"" help:"List events that waited for the broker and that no broker takes: of those published over HTTP, and of changed stores."`
	Retry   outboxRetryCommand   `cmd:"" help:"Have them sent again, for instance once what was wrong is mended."`
	Discard outboxDiscardCommand `cmd:"" help:"Remove them for good."`
}

type outboxListCommand struct {
	nodeFlag
	outputFlag
	Outbox string `help:"Only those of this outbox, such as state/mysql. Default: those of all outboxes of the node."`
	Limit  int    `short:"n" default:"100" help:"How many, up to 1000."`
	Cursor string `help:"Go on after the page before, with the cursor that it ended with."`
}

func (c *outboxListCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.messaging()
	if err != nil {
		return err
	}
	list := func(outbox, cursor string) (messagingapi.ListOutboxResponse, error) {
		return decode[messagingapi.ListOutboxResponse](read(client.ListOutbox(ctx, messagingapi.ListOutboxRequest{Limit: &c.Limit, Cursor: cursor, Outbox: outbox})))
	}
	first, err := list(c.Outbox, c.Cursor)
	if err != nil {
		return err
	}
	pages := []outboxPage{{c.Outbox, first}}
	if c.Outbox == "" && c.Cursor == "" {
		for _, other := range first.Others {
			page, err := list(other.Name, "")
			if err != nil {
				return err
			}
			pages = append(pages, outboxPage{other.Name, page})
		}
	}
	return c.print(std, first, func(t *table) {
		now := time.Now()
		t.row("OUTBOX", "ID", "TOPIC", "KEY", "MESSAGE ID", "PUBLISHED", "SET ASIDE", "SIZE", "REASON")
		for _, p := range pages {
			for _, e := range p.Events {
				t.row(p.name(), e.ID, e.Topic, e.PartitionKey, e.MessageID, ago(e.PublishedAt, now), ago(e.ParkedAt, now), e.Size, shortened(e.Reason))
			}
		}
		for _, p := range pages {
			t.line(fmt.Sprintf("%s: %d of %d set aside (%d wait for the broker)", p.name(), len(p.Events), p.Parked, p.Waiting))
			if p.Cursor != "" && int64(len(p.Events)) < p.Parked {
				t.line("more: --outbox '" + printable(p.Outbox) + "' --cursor " + printable(p.Cursor))
			}
		}
	})
}

// An outboxPage is what one outbox answered.
type outboxPage struct {
	Outbox string // as --outbox takes it; empty: that of events published over HTTP
	messagingapi.ListOutboxResponse
}

func (p outboxPage) name() string {
	if p.Outbox == "" {
		return "published"
	}
	return printable(p.Outbox)
}

// parkedFlags say which events are meant.
type parkedFlags struct {
	nodeFlag
	outputFlag
	Outbox string   `help:"The outbox that they are in, as listed. Default: that of events published over HTTP."`
	IDs    []string `arg:"" optional:"" name:"id" help:"Ids of events that were set aside."`
	All    bool     `help:"Every one that was set aside."`
}

func (f *parkedFlags) asked() (messagingapi.SettleOutboxRequest, error) {
	r := messagingapi.SettleOutboxRequest{Ids: f.IDs, All: f.All, Outbox: f.Outbox}
	switch {
	case len(f.IDs) > 0 && f.All:
		return r, usageError{errors.New("ids and --all contradict each other: give one of them")}
	case len(f.IDs) == 0 && !f.All:
		return r, usageError{errors.New("name events by their ids, or give --all for every one")}
	}
	return r, nil
}

// told prints how many it was. That some of the ids named nothing is an error.
func (f *parkedFlags) told(std *stdio, answer messagingapi.SettleOutboxResponse, done string) error {
	err := f.print(std, answer, func(t *table) { t.line(fmt.Sprintf("%d %s", answer.Count, done)) })
	if missing := int64(len(f.IDs)) - answer.Count; err == nil && missing > 0 {
		return fmt.Errorf("%d of the ids are not, or no longer, those of events that were set aside: list them again", missing)
	}
	return err
}

type outboxRetryCommand struct{ parkedFlags }

func (c *outboxRetryCommand) Run(ctx context.Context, std *stdio) error {
	request, err := c.asked()
	if err != nil {
		return err
	}
	client, err := c.messaging()
	if err != nil {
		return err
	}
	answer, err := decode[messagingapi.SettleOutboxResponse](read(client.RetryOutbox(ctx, request)))
	if err != nil {
		return err
	}
	return c.told(std, answer, "wait to be sent again")
}

type outboxDiscardCommand struct {
	parkedFlags
	Yes bool `short:"y" help:"Do not ask before more than one is removed."`
}

// Run asks before it removes many.
func (c *outboxDiscardCommand) Run(ctx context.Context, std *stdio) error {
	request, err := c.asked()
	if err != nil {
		return err
	}
	client, err := c.messaging()
	if err != nil {
		return err
	}
	if !c.Yes && len(c.IDs) != 1 {
		question := fmt.Sprintf("remove %d events for good?", len(c.IDs))
		if c.All {
			question = "remove every event that was set aside for good?"
		}
		if err := confirm(std, question); err != nil {
			return err
		}
	}
	answer, err := decode[messagingapi.SettleOutboxResponse](read(client.DiscardOutbox(ctx, request)))
	if err != nil {
		return err
	}
	return c.told(std, answer, "discarded")
}
