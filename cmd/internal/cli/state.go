package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/services/state/stateapi"
)

type stateCommand struct {
	Get    stateGetCommand    `cmd:"" help:"Read a value."`
	Save   stateSaveCommand   `cmd:"" help:"Write a value."`
	Delete stateDeleteCommand `cmd:"" help:"Remove a value."`
	Query  stateQueryCommand  `cmd:"" help:"Find values with a filter in MongoDB's notation."`

	Migrate stateMigrateCommand `cmd:"" help:"Move a store to another backend while it is in use."`
}

type stateGetCommand struct {
	nodeFlag
	outputFlag
	Store string `arg:"" help:"Name of the store."`
	Key   string `arg:"" help:"Key."`
}

func (c *stateGetCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.state()
	if err != nil {
		return err
	}
	answer, err := decode[stateapi.GetStateResponse](read(client.GetState(ctx, stateapi.GetStateRequest{StoreName: c.Store, Key: c.Key})))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		t.row("VALUE", compact(answer.Value))
		t.row("ETAG", answer.Etag)
		t.row("VERSION", answer.Metadata.Version)
		t.row("CREATED", answer.Metadata.CreatedAt.Format(time.RFC3339))
		t.row("UPDATED", answer.Metadata.UpdatedAt.Format(time.RFC3339))
		if at := answer.Metadata.ExpiresAt; at != nil {
			t.row("EXPIRES", at.Format(time.RFC3339))
		}
	})
}

type stateSaveCommand struct {
	nodeFlag
	outputFlag
	Store   string  `arg:"" help:"Name of the store."`
	Key     string  `arg:"" help:"Key."`
	Value   string  `arg:"" help:"Any JSON value; - reads it from standard input."`
	ETag    *string `name:"etag" help:"Write only if the key still has this ETag; an empty one means only if the key is absent."`
	TTL     int64   `name:"ttl" help:"Seconds until the key vanishes."`
	Forever bool    `help:"Take an expiry away from the key."`
}

func (c *stateSaveCommand) Run(ctx context.Context, std *stdio) error {
	value, err := jsonArgument(std, "the value", c.Value)
	if err != nil {
		return err
	}
	options := stateapi.StateOptions{Etag: c.ETag}
	switch forever := int64(-1); {
	case c.TTL != 0 && c.Forever:
		return usageError{errors.New("--ttl and --forever contradict each other: give one of them")}
	case c.Forever:
		options.TTL = &forever
	case c.TTL != 0:
		options.TTL = &c.TTL
	}
	client, err := c.state()
	if err != nil {
		return err
	}
	answer, err := decode[stateapi.SaveStateResponse](read(
		client.SaveState(ctx, stateapi.SaveStateRequest{StoreName: c.Store, Key: c.Key, Value: value, Options: options})))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) { t.line("saved, etag " + answer.Etag) })
}

type stateDeleteCommand struct {
	nodeFlag
	outputFlag
	Store string  `arg:"" help:"Name of the store."`
	Key   string  `arg:"" help:"Key."`
	ETag  *string `name:"etag" help:"Remove only if the key still has this ETag."`
}

func (c *stateDeleteCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.state()
	if err != nil {
		return err
	}
	answer, err := decode[stateapi.DeleteStateResponse](read(
		client.DeleteState(ctx, stateapi.DeleteStateRequest{StoreName: c.Store, Key: c.Key, Etag: c.ETag})))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		if answer.Deleted {
			t.line("deleted")
		} else {
			t.line("there was nothing to delete")
		}
	})
}

type stateQueryCommand struct {
	nodeFlag
	outputFlag
	Store    string   `arg:"" help:"Name of the store."`
	Filter   string   `arg:"" default:"{}" help:"Filter, such as '{\"level\": {\"$gte\": 5}}'."`
	Sort     []string `help:"Members to sort by; a minus before one reverses it: --sort=-level,name."`
	Page     int      `help:"Page, from 0."`
	PageSize int      `name:"page-size" default:"100" help:"Values a page, up to 1000."`
}

func (c *stateQueryCommand) Run(ctx context.Context, std *stdio) error {
	filter, err := jsonArgument(std, "the filter", c.Filter)
	if err != nil {
		return err
	}
	request := stateapi.QueryStateRequest{StoreName: c.Store, Filter: filter, Page: c.Page, PageSize: &c.PageSize}
	for _, field := range c.Sort {
		order := stateapi.Asc
		if name, reversed := strings.CutPrefix(field, "-"); reversed {
			field, order = name, stateapi.Desc
		}
		request.Sort = append(request.Sort, stateapi.SortField{Field: field, Order: order})
	}
	client, err := c.state()
	if err != nil {
		return err
	}
	answer, err := decode[stateapi.QueryStateResponse](read(client.QueryState(ctx, request)))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		t.row("KEY", "VALUE")
		for i, value := range answer.Results {
			t.row(answer.Keys[i], compact(value))
		}
		if answer.TotalCount != nil { // a node leaves it out where it does not count
			t.line(fmt.Sprintf("%d of %d", len(answer.Results), *answer.TotalCount))
		}
	})
}

type storesCommand struct {
	nodeFlag
	outputFlag
	Backend string `help:"Only stores on this backend: redis, mysql, sqlite, memory."`
	Count   bool   `help:"Count the keys; a store that is being counted for longer than a second shows its last count, or a reason why it has none."`
}

func (c *storesCommand) Run(ctx context.Context, std *stdio) error {
	client, err := c.state()
	if err != nil {
		return err
	}
	answer, err := decode[stateapi.ListStoresResponse](read(client.ListStores(ctx,
		stateapi.ListStoresRequest{BackendFilter: stateapi.ListStoresRequestBackendFilter(c.Backend), IncludeStats: c.Count})))
	if err != nil {
		return err
	}
	return c.print(std, answer, func(t *table) {
		if c.Count {
			t.row("STORE", "BACKEND", "KEYS")
		} else {
			t.row("STORE", "BACKEND")
		}
		for _, s := range answer.Stores {
			switch {
			case s.KeyCount != nil:
				t.row(s.Name, s.Backend, *s.KeyCount)
			case c.Count:
				t.row(s.Name, s.Backend, "? "+printable(s.Detail))
			default:
				t.row(s.Name, s.Backend)
			}
		}
	})
}
