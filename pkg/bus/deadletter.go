package bus

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DeadLetterKey is what the routing key of every dead letter begins with; the original topic follows.
const DeadLetterKey = "dead-letter."

// Discard is what the history of a dead letter is made of.
type Discard struct {
	Exchange           string // the bus's exchange, for a message that names none
	DeadLetterExchange string
	Queue              string // the queue it was in
	Reason             string // one of the Discard constants
	Attempt            int    // of the last delivery; 0 when it was never delivered
	Err                error  // nil: none
	At                 time.Time
}

// DeadLetter is the message that records that m was given up: m itself, its body, properties and headers kept, sent to
// the dead-letter exchange with its history in further headers. It does not expire and is mandatory: a dead letter
// that no queue would keep is an error, not a loss. Drivers use it for what expires in their queues.
func DeadLetter(m *Message, d Discard) *Message {
	letter := *m
	letter.Exchange = d.DeadLetterExchange
	letter.RoutingKey = cut(DeadLetterKey+m.RoutingKey, maxNameBytes)
	letter.Expiration = 0
	letter.Mandatory = true
	letter.Transient = false
	letter.Headers = make(map[string]string, len(m.Headers)+8)
	copyHeaders(letter.Headers, m.Headers)
	delete(letter.Headers, HeaderPostponed)

	exchange := m.Exchange
	if exchange == "" {
		exchange = d.Exchange
	}
	letter.Headers[HeaderOriginalTopic] = m.RoutingKey
	letter.Headers[HeaderOriginalExchange] = exchange
	letter.Headers[HeaderOriginalQueue] = d.Queue
	letter.Headers[HeaderRetryCount] = strconv.Itoa(max(0, d.Attempt-1))
	letter.Headers[HeaderDiscardedAt] = d.At.UTC().Format(time.RFC3339Nano)
	letter.Headers[HeaderDiscardReason] = d.Reason
	if !m.Timestamp.IsZero() {
		letter.Headers[HeaderQueuedAt] = m.Timestamp.UTC().Format(time.RFC3339Nano)
	}
	if m.Expiration > 0 {
		letter.Headers[HeaderOriginalExpiration] = m.Expiration.String()
	}
	if d.Err != nil {
		letter.Headers[HeaderException] = cut(strings.ToValidUTF8(d.Err.Error(), "?"), 4<<10)
	}
	return &letter
}

// renamedHeader is the name that a header is kept under when a message of another program is sent on. RabbitMQ takes the headers CC and
// BCC, in this case, for lists of further routing keys, and closes the channel over one that is no list.
func renamedHeader(name string) string {
	switch name {
	case "CC":
		return "x-cc"
	case "BCC":
		return "x-bcc"
	}
	return name
}

// copyHeaders copies headers of a message that is sent on.
func copyHeaders(to, from map[string]string) {
	for name, value := range from {
		to[renamedHeader(name)] = value
	}
}

// LetterHeaderRoom is how many bytes of headers DeadLetter adds at most, names and AMQP's own bytes included. A driver that
// bounds headers takes so many more of what goes to the dead letters, or comes from there.
const LetterHeaderRoom = 8 << 10

const (
	lightHeaders = 32 << 10  // of a letter that was refused for its headers, beside those of its history
	namesOmitted = 1 << 10   // bytes of HeaderOmittedHeaders
	refusedPause = time.Hour // before an event is handled again whose dead letter no broker would take
)

// publishLetter publishes a dead letter. One that the broker would never take is sent without its largest headers, which
// another program has made larger than a publisher here may: a record that lacks them is worth more than none.
func (b *Bus) publishLetter(ctx context.Context, letter *Message) error {
	err := b.driver.Publish(ctx, letter)
	if !errors.Is(err, ErrInvalid) {
		return err
	}
	light := lighter(letter)
	if light == nil {
		return err
	}
	b.log.LogAttrs(ctx, slog.LevelWarn, "a dead letter is kept without its largest headers", slog.String("messageId", letter.ID),
		slog.String("omitted", light.Headers[HeaderOmittedHeaders]), slog.Any("error", err))
	return b.driver.Publish(ctx, light)
}

// lighter is a letter without its largest headers, as few as leave lightHeaders; nil: it has no more than that.
func lighter(letter *Message) *Message {
	var names []string
	size := 0
	for name, value := range letter.Headers {
		if name != HeaderOmittedHeaders && !slices.Contains(historyHeaders, name) {
			names = append(names, name)
			size += len(name) + len(value)
		}
	}
	if size <= lightHeaders {
		return nil
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b)+len(letter.Headers[b]), len(a)+len(letter.Headers[a])), cmp.Compare(a, b))
	})
	light := *letter
	light.Headers = maps.Clone(letter.Headers)
	omitted := 0
	for ; size > lightHeaders; omitted++ {
		size -= len(names[omitted]) + len(letter.Headers[names[omitted]])
		delete(light.Headers, names[omitted])
	}
	light.Headers[HeaderOmittedHeaders] = cut(strings.Join(names[:omitted], ","), namesOmitted)
	return &light
}

// discardReason tells which of the reasons a handler's error is.
func discardReason(err error) string {
	var undecodable *undecodableError
	switch {
	case errors.As(err, &undecodable):
		return DiscardUndecodable
	case IsPermanent(err):
		return DiscardPermanent
	default:
		return DiscardMaxRetries
	}
}

// cut shortens s to at most n bytes without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
