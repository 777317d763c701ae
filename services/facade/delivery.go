package facade

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/cloudevents"
)

// A delivery hands the events of one subscription to the app.
type delivery struct {
	service     *Service
	wanted      Subscription
	to          receiver
	pubsub      PubSub
	topic       string // on the bus
	group       string // the name of its queue, with the topic
	deadLetters string // on the bus; empty: none
	rules       []rule
	queue       *bus.Subscription
}

// away is how long an event waits when the app does not listen. That is no failure of the event, and is not counted.
const away = time.Second

// What becomes of an event that the app has seen.
type verdict int

const (
	success verdict = iota
	retry
	drop
	lost // the app has no such path
)

// deliver is the handler of the bus. nil acknowledges; an error has the bus deliver the event again, and keep it as a dead letter in the end.
func (d *delivery) deliver(ctx context.Context, r *bus.Received) error {
	e := eventOf(r, d.wanted.PubSub, d.wanted.Topic)
	path, err := d.route(e)
	if err != nil {
		return d.giveUp(ctx, r, e, err)
	}
	v, err := d.to.deliver(ctx, d, path, r, e)
	switch {
	case errors.Is(err, errUnreached):
		return bus.RetryAfter(err, away)
	case v == success:
		return nil
	case v == drop && d.deadLetters == "":
		d.service.cfg.Logger.WarnContext(ctx, "the app dropped an event", "topic", d.wanted.Topic, "id", r.MessageID)
		return nil
	case v == drop, v == lost, r.Attempt > d.service.cfg.Retries:
		return d.giveUp(ctx, r, e, err)
	}
	return err
}

// giveUp sends an event to the topic of dead letters, or has the bus keep it: also where nobody is subscribed to that topic.
func (d *delivery) giveUp(ctx context.Context, r *bus.Received, e event, err error) error {
	if d.deadLetters == "" {
		return bus.Permanent(err)
	}
	if r.Headers[cloudevents.HeaderAttributes] == "" {
		e = event{data: e.data} // what came without an envelope goes without one
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return err // the node stops, and the event goes back to its queue
	}
	dead, _ := e.options(nil) // nothing is asked for that could be wrong
	dead.Mandatory = true
	failed := send(context.WithoutCancel(ctx), d.pubsub.Bus, d.deadLetters, e, dead) // the app may have used up the time
	switch {
	case errors.Is(failed, bus.ErrUnroutable):
		return bus.Permanent(fmt.Errorf("%w (and nobody is subscribed to its topic of dead letters, %s)", err, d.wanted.DeadLetterTopic))
	case failed != nil:
		return fmt.Errorf("to the topic of dead letters: %w", failed)
	}
	d.service.cfg.Logger.WarnContext(ctx, "an event went to the topic of dead letters", "topic", d.wanted.Topic, "to", d.wanted.DeadLetterTopic, "id", r.MessageID, "error", err)
	return nil
}

// route is the path of the first rule that matches.
func (d *delivery) route(e event) (string, error) {
	if len(d.rules) > 0 {
		whole := map[string]any{}
		if err := json.Unmarshal(e.envelope(), &whole); err != nil {
			return "", fmt.Errorf("the event cannot be read for its rules: %w", err)
		}
		for _, rule := range d.rules {
			if rule.matches(whole) {
				return rule.path, nil
			}
		}
	}
	if d.wanted.Default == "" && !d.wanted.pathless {
		return "", errors.New("no rule of the subscription matches the event, and there is no default route")
	}
	return d.wanted.Default, nil
}

// content is what is sent to an app over HTTP: the event's envelope, in the form that its subscription asks for.
func (d *delivery) content(r *bus.Received, e event) []byte {
	content := e.envelope()
	if d.wanted.raw() {
		content = rawEnvelope(payload(r, e), r.MessageID, d.wanted.PubSub, d.wanted.Topic)
	}
	if d.wanted.Bulk {
		return d.bulk(r, content)
	}
	return content
}

// payload is what was sent: the data where it was sent raw, and the envelope otherwise.
func payload(r *bus.Received, e event) []byte {
	if r.Headers[cloudevents.HeaderAttributes] == "" {
		return e.data
	}
	return e.envelope()
}

// read is what the body of an app's success says. One that is no JSON is a success, as with Dapr.
func read(body []byte, bulk bool) (verdict, error) {
	var said struct {
		Status   string `json:"status"`
		Statuses []struct {
			Status string `json:"status"`
		} `json:"statuses"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return success, nil //nolint:nilerr // said above
	}
	if bulk && len(said.Statuses) > 0 {
		said.Status = said.Statuses[0].Status
	}
	switch said.Status {
	case "", "SUCCESS":
		return success, nil
	case "DROP":
		return drop, errors.New("the app said DROP")
	case "RETRY":
		return retry, errors.New("the app said RETRY")
	}
	return retry, fmt.Errorf("the app said %q, which is none of SUCCESS, RETRY and DROP", said.Status)
}

// bulk is the form of a bulk delivery, of one event.
func (d *delivery) bulk(r *bus.Received, content []byte) []byte {
	entry := cloudevents.Object(map[string]jsontext.Value{
		"entryId": cloudevents.Quote(r.MessageID), "event": content, "contentType": cloudevents.Quote(cloudevents.ContentType), "metadata": jsontext.Value("{}"),
	})
	return cloudevents.Object(map[string]jsontext.Value{
		"id": cloudevents.Quote(r.MessageID), "entries": append(append([]byte("["), entry...), ']'), "metadata": jsontext.Value("{}"),
		"topic": cloudevents.Quote(d.wanted.Topic), "pubsubname": cloudevents.Quote(d.wanted.PubSub), "type": cloudevents.Quote(cloudevents.TypeOfDapr + ".bulk"),
	})
}
