package rabbitbus

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Headers that this driver writes for itself. All are strings, since a stock Watermill program can read no others.
// They are not part of a bus.Message's headers, in either direction.
const (
	// headerWatermillID is where Watermill's AMQP adapter keeps a message's id.
	headerWatermillID = "_watermill_message_uuid"
	// headerReturnTag tells the returns of mandatory messages apart; message ids need not be unique.
	headerReturnTag = "bannou-return-tag"
	// The others say, of a message that waits for its next attempt, what it is when it comes back.
	headerAttempt    = "bannou-attempt"     // the number of the next attempt
	headerExchange   = "bannou-exchange"    // where it was published
	headerRoutingKey = "bannou-routing-key" // with which key
	headerExpiration = "bannou-expiration"  // in milliseconds, as its publisher said
)

const (
	// maxShortString is AMQP's limit for names, keys and most properties, in bytes.
	maxShortString = 255
	// maxHeaderBytes bounds all headers together: they must fit one frame (128 KiB unless the broker says otherwise),
	// or the broker closes the connection. Dead letters may have bus.LetterHeaderRoom more, for their history.
	maxHeaderBytes = 64 << 10
	// maxExpiration is RabbitMQ's limit for a time to live.
	maxExpiration = (1<<32 - 1) * time.Millisecond
)

// isOwnHeader reports whether a header is the driver's.
func isOwnHeader(name string) bool {
	switch name {
	case headerWatermillID, headerReturnTag, headerAttempt, headerExchange, headerRoutingKey, headerExpiration:
		return true
	}
	return false
}

// isDeathHeader reports whether a header is the broker's account of a dead-lettering or redelivery.
func isDeathHeader(name string) bool {
	return name == "x-death" || name == "x-delivery-count" ||
		strings.HasPrefix(name, "x-first-death-") || strings.HasPrefix(name, "x-last-death-")
}

// sendersRoute reports whether RabbitMQ takes a header for a list of further routing keys (sender-selected distribution). Over one that is
// no list it closes the channel. It knows the names in this case alone.
func sendersRoute(name string) bool { return name == "CC" || name == "BCC" }

// keptAs is the name under which a header is sent on that came from another program.
func keptAs(name string) string {
	if sendersRoute(name) {
		return "x-" + strings.ToLower(name)
	}
	return name
}

// checkMessage reports what no broker would take: amqp091 or the broker would close the connection or channel over it,
// on which others wait. letter: it goes to the dead letters, or comes from there.
func checkMessage(m *bus.Message, maxBody int, letter bool) error {
	for _, p := range []struct{ what, value string }{
		{"exchange", m.Exchange}, {"routing key", m.RoutingKey}, {"id", m.ID}, {"type", m.Type},
		{"content type", m.ContentType}, {"correlation id", m.CorrelationID},
	} {
		if len(p.value) > maxShortString {
			return fmt.Errorf("%w: the message's %s has %d bytes; AMQP has room for %d", bus.ErrInvalid, p.what, len(p.value), maxShortString)
		}
	}
	if len(m.Body) > maxBody {
		return fmt.Errorf("%w: the message's body has %d bytes; MaxMessageBytes is %d", bus.ErrInvalid, len(m.Body), maxBody)
	}
	if m.Expiration < 0 || m.Expiration > maxExpiration {
		return fmt.Errorf("%w: the message's expiration is %s; RabbitMQ takes 0 to %s", bus.ErrInvalid, m.Expiration, maxExpiration)
	}
	if m.Priority > maxPriority {
		return fmt.Errorf("%w: the message's priority is %d; it is 0 to %d", bus.ErrInvalid, m.Priority, maxPriority)
	}
	size := 0
	for name, value := range m.Headers {
		if len(name) > maxShortString {
			return fmt.Errorf("%w: a header's name has %d bytes; AMQP has room for %d", bus.ErrInvalid, len(name), maxShortString)
		}
		if sendersRoute(name) && !letter {
			return fmt.Errorf("%w: a header has the name %q, which RabbitMQ takes for a list of further queues to send the message to", bus.ErrInvalid, name)
		}
		size += len(name) + len(value) + 6
	}
	most := maxHeaderBytes
	if letter {
		most += bus.LetterHeaderRoom
	}
	if size > most {
		return fmt.Errorf("%w: the message's headers have %d bytes; together they may have %d", bus.ErrInvalid, size, most)
	}
	return nil
}

// toPublishing is a message as AMQP has it.
func toPublishing(m *bus.Message) amqp.Publishing {
	headers := make(amqp.Table, len(m.Headers)+2)
	for name, value := range m.Headers {
		if !isOwnHeader(name) && !isDeathHeader(name) {
			headers[keptAs(name)] = value
		}
	}
	headers[headerWatermillID] = m.ID
	p := amqp.Publishing{
		Headers:       headers,
		ContentType:   m.ContentType,
		DeliveryMode:  amqp.Persistent,
		Priority:      m.Priority,
		CorrelationId: m.CorrelationID,
		MessageId:     m.ID,
		Timestamp:     m.Timestamp,
		Type:          m.Type,
		Body:          m.Body,
	}
	if m.Transient {
		p.DeliveryMode = amqp.Transient
	}
	if m.Expiration > 0 {
		p.Expiration = milliseconds(m.Expiration)
	}
	return p
}

// describeReturn writes beside a message that goes to one queue through the default exchange what it is to its reader:
// fromDelivery restores it. The expiration is only told: it would cut a delay short, and attempts are counted instead.
func describeReturn(headers amqp.Table, attempt int, m *bus.Message) {
	headers[headerAttempt] = strconv.Itoa(attempt)
	headers[headerExchange] = m.Exchange
	headers[headerRoutingKey] = m.RoutingKey
	if m.Expiration > 0 {
		headers[headerExpiration] = milliseconds(m.Expiration)
	}
}

// milliseconds writes a duration as AMQP has it. It never writes 0 for more than nothing: 0 expires at once.
func milliseconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Millisecond-1)/time.Millisecond), 10)
}

// fromDelivery is a delivery as a message, and the number of its attempt. It takes any header and any property: what
// another program sent must not stop a queue.
func fromDelivery(d *amqp.Delivery) (*bus.Message, int) {
	m := &bus.Message{
		Exchange:      d.Exchange,
		RoutingKey:    d.RoutingKey,
		ID:            d.MessageId,
		Type:          d.Type,
		ContentType:   d.ContentType,
		Timestamp:     d.Timestamp,
		CorrelationID: d.CorrelationId,
		Priority:      d.Priority,
		Expiration:    parseMilliseconds(d.Expiration),
		Transient:     d.DeliveryMode != amqp.Persistent,
		Headers:       make(map[string]string, len(d.Headers)),
		Body:          d.Body,
	}
	attempt := 1
	_, returned := d.Headers[headerAttempt] // it came back from a delay queue: the account of that death is no news
	for name, value := range d.Headers {
		switch {
		case name == headerWatermillID:
			if m.ID == "" {
				m.ID = text(value)
			}
		case name == headerAttempt:
			if n, err := strconv.Atoi(text(value)); err == nil && n > 0 && n < 1<<30 {
				attempt = n
			}
		case name == headerExchange:
			m.Exchange = text(value)
		case name == headerRoutingKey:
			m.RoutingKey = text(value)
		case name == headerExpiration:
			m.Expiration = parseMilliseconds(text(value))
		case name == headerReturnTag, name == "x-delivery-count":
		case returned && isDeathHeader(name):
		default:
			m.Headers[name] = text(value)
		}
	}
	if !returned {
		describeDeath(m.Headers, d.Headers["x-death"])
	}
	return m, attempt + redeliveries(d)
}

// redeliveries counts how often the broker has delivered this message before. Quorum queues count; of other queues it
// is only known that it was.
func redeliveries(d *amqp.Delivery) int {
	if n, ok := integer(d.Headers["x-delivery-count"]); ok && n >= 0 && n < 1<<30 {
		return int(n)
	}
	if d.Redelivered {
		return 1
	}
	return 0
}

// describeDeath writes the contract's headers for a message that the broker dead-lettered, from the broker's account.
func describeDeath(headers map[string]string, account any) {
	list, _ := account.([]any)
	if len(list) == 0 {
		return
	}
	last, _ := list[0].(amqp.Table) // the newest comes first
	put := func(name, value string) {
		if _, found := headers[name]; !found && value != "" {
			headers[name] = value
		}
	}
	put(bus.HeaderDiscardReason, text(last["reason"]))
	put(bus.HeaderOriginalQueue, text(last["queue"]))
	put(bus.HeaderOriginalExchange, text(last["exchange"]))
	if keys, _ := last["routing-keys"].([]any); len(keys) > 0 {
		put(bus.HeaderOriginalTopic, text(keys[0]))
	}
	if at, ok := last["time"].(time.Time); ok {
		put(bus.HeaderDiscardedAt, at.UTC().Format(time.RFC3339Nano))
	}
	put(bus.HeaderRetryCount, "0")
}

// parseMilliseconds reads an expiration; what is none counts as none.
func parseMilliseconds(s string) time.Duration {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || n > int64(maxExpiration/time.Millisecond) {
		return 0
	}
	return time.Duration(n) * time.Millisecond
}

// integer reads any of AMQP's integers.
func integer(v any) (int64, bool) {
	switch n := v.(type) {
	case int8:
		return int64(n), true
	case uint8:
		return int64(n), true
	case int16:
		return int64(n), true
	case uint16:
		return int64(n), true
	case int32:
		return int64(n), true
	case uint32:
		return int64(n), true
	case int64:
		return n, true
	case int:
		return int64(n), true
	}
	return 0, false
}

// text writes any header value as text: strings as they are, numbers in decimal, times in RFC 3339, bytes that are not
// UTF-8 in base64, tables and lists as JSON.
func text(v any) string {
	switch t := v.(type) {
	case nil:
		return ""
	case string:
		return t
	case []byte:
		if utf8.Valid(t) {
			return string(t)
		}
		return base64.StdEncoding.EncodeToString(t)
	case bool:
		return strconv.FormatBool(t)
	case float32:
		return strconv.FormatFloat(float64(t), 'g', -1, 32)
	case float64:
		return strconv.FormatFloat(t, 'g', -1, 64)
	case time.Time:
		return t.UTC().Format(time.RFC3339Nano)
	case amqp.Table, []any:
		b, err := json.Marshal(plain(t), json.Deterministic(true))
		if err != nil {
			return fmt.Sprint(t)
		}
		return string(b)
	}
	if n, ok := integer(v); ok {
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprint(v)
}

// plain turns a header's tables into what JSON can hold: numbers and truth values as they are, all else as text.
func plain(v any) any {
	switch t := v.(type) {
	case amqp.Table:
		m := make(map[string]any, len(t))
		for k, e := range t {
			m[strings.ToValidUTF8(k, "\uFFFD")] = plain(e)
		}
		return m
	case []any:
		l := make([]any, len(t))
		for i, e := range t {
			l[i] = plain(e)
		}
		return l
	case bool:
		return t
	}
	if n, ok := integer(v); ok {
		return n
	}
	return strings.ToValidUTF8(text(v), "\uFFFD")
}
