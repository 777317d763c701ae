package facade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// A delivery hands the events of one subscription to the app.
type delivery struct {
	service     *Service
	wanted      Subscription
	pubsub      PubSub
	topic       string // on the bus
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
	v, err := d.post(ctx, path, r, e)
	switch {
	case unreached(err):
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

// unreached reports whether the event never left for the app: nobody listens there, or its name is not known, as while its container is replaced.
func unreached(err error) bool {
	var failed *net.OpError
	return errors.As(err, &failed) && failed.Op == "dial"
}

// giveUp sends an event to the topic of dead letters, or has the bus keep it: also where nobody is subscribed to that topic.
func (d *delivery) giveUp(ctx context.Context, r *bus.Received, e event, err error) error {
	if d.deadLetters == "" {
		return bus.Permanent(err)
	}
	if r.Headers[headerAttributes] == "" {
		e = event{data: e.data} // what came without an envelope goes without one
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return err // the node stops, and the event goes back to its queue
	}
	dead := e.options(nil)
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
	if d.wanted.Default == "" {
		return "", errors.New("no rule of the subscription matches the event, and there is no default route")
	}
	return d.wanted.Default, nil
}

// post hands the event to the app, and reads what it says. The error says why it was not a success.
func (d *delivery) post(ctx context.Context, path string, r *bus.Received, e event) (verdict, error) {
	content := e.envelope()
	if d.wanted.raw() {
		payload := content
		if r.Headers[headerAttributes] == "" {
			payload = e.data
		}
		content = rawEnvelope(payload, r.MessageID, d.wanted.PubSub, d.wanted.Topic)
	}
	if d.wanted.Bulk {
		content = d.bulk(r, content)
	}
	request, err := d.service.toApp(ctx, http.MethodPost, path, bytes.NewReader(content))
	if err != nil {
		return lost, err
	}
	request.Header.Set("Content-Type", "application/cloudevents+json")
	for _, name := range []string{bus.HeaderTraceParent, bus.HeaderTraceState} {
		if value := r.Headers[name]; value != "" {
			request.Header.Set(name, value)
		}
	}
	response, err := d.service.app.Do(request)
	if err != nil {
		return retry, fmt.Errorf("the app could not be called: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	switch {
	case err != nil:
		return retry, fmt.Errorf("the app broke off its answer: %w", err)
	case response.StatusCode == http.StatusNotFound:
		return lost, fmt.Errorf("the app has nothing at %s", path)
	case response.StatusCode < 200 || response.StatusCode > 299:
		return retry, fmt.Errorf("the app answered %s", response.Status)
	}
	return read(body, d.wanted.Bulk)
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
	entry := object(map[string]jsontext.Value{
		"entryId": quote(r.MessageID), "event": content, "contentType": quote("application/cloudevents+json"), "metadata": jsontext.Value("{}"),
	})
	return object(map[string]jsontext.Value{
		"id": quote(r.MessageID), "entries": append(append([]byte("["), entry...), ']'), "metadata": jsontext.Value("{}"),
		"topic": quote(d.wanted.Topic), "pubsubname": quote(d.wanted.PubSub), "type": quote("com.dapr.event.sent.bulk"),
	})
}
