package bus

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// HeaderForwardedThrough names the exchanges that a forwarded message has been in, the first first, with commas between
// them.
const HeaderForwardedThrough = "forwarded-through"

// Forward publishes the event that ctx belongs to, a handler's, to another exchange as it is: body, id, type, routing
// key, headers and all other properties, but for HeaderForwardedThrough and the trace, which has one more hop. It
// returns once the broker has confirmed it.
//
// A message goes to an exchange once: one that was in it already is not sent there again, and that is no error. So
// forwarding in a circle ends where it began.
//
// ErrInvalid, marked Permanent: ctx is no handler's, the exchange is the bus's own or that of dead letters, or no broker
// would take the message. Other errors are those of Publish.
func (b *Bus) Forward(ctx context.Context, exchange string) error {
	w := workFrom(ctx)
	if w == nil {
		return Permanent(fmt.Errorf("%w: only a handler can forward, with the context it was called with", ErrInvalid))
	}
	if err := b.CheckForward(exchange); err != nil {
		return Permanent(err)
	}
	m, again := b.forwarded(w.message, exchange)
	if again {
		return nil
	}
	if b.isClosed() {
		return fmt.Errorf("cannot forward to exchange %q: %w", exchange, ErrClosed)
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.PublishTimeout)
	defer cancel()
	ctx, done := b.telemetry.publishing(ctx, m.RoutingKey, m)
	err := b.driver.Publish(ctx, m)
	done(err)
	if err != nil {
		err = fmt.Errorf("cannot forward to exchange %q: %w", exchange, err)
	}
	if errors.Is(err, ErrInvalid) {
		return Permanent(err)
	}
	return err
}

// CheckForward is ErrInvalid when Forward would not send to the exchange whatever the message. The bus's own is the one
// that subscriptions read; in that of dead letters a copy would pass for an event that failed.
func (b *Bus) CheckForward(exchange string) error {
	if err := checkName("exchange", exchange); err != nil {
		return err
	}
	switch {
	case strings.Contains(exchange, ","):
		return fmt.Errorf("%w: exchange %q has a comma in its name, which separates names in a header", ErrInvalid, exchange)
	case exchange == b.cfg.Exchange:
		return fmt.Errorf("%w: exchange %q is where the events come from: choose another", ErrInvalid, exchange)
	case exchange == b.cfg.DeadLetterExchange:
		return fmt.Errorf("%w: exchange %q is for dead letters: choose another", ErrInvalid, exchange)
	}
	return nil
}

// forwarded is the message as it goes to the exchange, and whether it was there before.
func (b *Bus) forwarded(m *Message, exchange string) (_ *Message, again bool) {
	through := forwardedThrough(m.Headers[HeaderForwardedThrough], cmp.Or(m.Exchange, b.cfg.Exchange))
	if slices.Contains(through, exchange) {
		return nil, true
	}
	copied := *m
	copied.Exchange = exchange
	copied.Mandatory = false // where nobody listens, nothing is copied
	copied.Body = bytes.Clone(m.Body)
	copied.Headers = make(map[string]string, len(m.Headers)+2)
	copyHeaders(copied.Headers, m.Headers)
	copied.Headers[HeaderForwardedThrough] = strings.Join(append(through, exchange), ",")
	return &copied, false
}

// forwardedThrough adds an exchange to those that the header names, unless it is among them: another program may move
// messages about too, and the header must not grow with each round.
func forwardedThrough(header, exchange string) []string {
	if header == "" {
		return []string{exchange}
	}
	through := strings.Split(header, ",")
	if slices.Contains(through, exchange) {
		return through
	}
	return append(through, exchange)
}
