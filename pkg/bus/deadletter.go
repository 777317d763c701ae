package bus

import (
	"errors"
	"maps"
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
	maps.Copy(letter.Headers, m.Headers)
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
