package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
)

// next waits for an event.
func next(ctx context.Context, from <-chan *common.TopicEvent) (*common.TopicEvent, error) {
	select {
	case e := <-from:
		return e, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for an event: %w", ctx.Err())
	}
}

func (a *app) publish(ctx context.Context) error {
	for _, sent := range []struct {
		what string
		data any
		with []client.PublishEventOption
	}{
		{"event in JSON", map[string]int{"id": 7}, nil},
		{"event of text", "some text", []client.PublishEventOption{client.PublishEventWithContentType("text/plain")}},
		{"event of bytes", []byte{0, 1, 255}, []client.PublishEventOption{client.PublishEventWithContentType("application/octet-stream")}},
		{"event with attributes", map[string]int{"id": 8}, []client.PublishEventOption{client.PublishEventWithMetadata(map[string]string{"cloudevent.id": "own-id", "cloudevent.type": "own-type"})}},
	} {
		published := a.client.PublishEvent(ctx, "local", "orders", sent.data, sent.with...)
		e, err := next(ctx, a.events)
		if err != nil {
			return err
		}
		id := e.ID
		if len(id) == 36 {
			id = "a UUID"
		}
		say(sent.what, code(published), id, e.Source, e.Type, e.SpecVersion, e.DataContentType, e.Topic, e.PubsubName, string(e.RawData))
	}
	several := a.client.PublishEvents(ctx, "local", "orders", []any{map[string]int{"id": 9}, "text", []byte("bytes")})
	var came []string
	for range 3 {
		e, err := next(ctx, a.events)
		if err != nil {
			return err
		}
		came = append(came, e.DataContentType+" "+string(e.RawData))
	}
	slices.Sort(came)
	say("several events", code(several.Error), len(several.FailedEvents), came)
	return nil
}

// stream is a subscription that the program opens and closes itself.
func (a *app) stream(ctx context.Context) error {
	end, err := a.client.SubscribeWithHandler(ctx, client.SubscriptionOptions{PubsubName: "local", Topic: "streamed"}, func(e *common.TopicEvent) common.SubscriptionResponseStatus {
		a.streamed <- e
		if string(e.RawData) == `{"answer":"drop"}` {
			return common.SubscriptionResponseStatusDrop
		}
		return common.SubscriptionResponseStatusSuccess
	})
	if err != nil {
		return err
	}
	for _, answer := range []string{"success", "drop"} {
		published := a.client.PublishEvent(ctx, "local", "streamed", map[string]string{"answer": answer})
		e, err := next(ctx, a.streamed)
		if err != nil {
			return err
		}
		say("streamed", code(published), e.Topic, e.Type, string(e.RawData))
	}
	say("stream closed", end() == nil)
	return nil
}
