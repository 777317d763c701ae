package bus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// MaxLetters is the longest list that ListLetters gives.
const MaxLetters = 1000

// A Letter is an event that was given up: what it was, and what became of it.
type Letter struct {
	// ID is made of message id, queue and time, so that it is the same at each reading. Letters of other programs that
	// have none of these are told apart by their content.
	ID string

	Topic    string // what the event was published under
	Exchange string // where
	Queue    string // of the subscription that gave up; empty where the letter does not say
	Handler  string // the part of Queue after the topic: the group; empty where the queue is not named so

	Reason      string    // one of the Discard reasons, or what another program wrote
	Exception   string    // the last error's text
	RetryCount  int       // redeliveries before it was given up
	QueuedAt    time.Time // when the event was published; zero: unknown
	DiscardedAt time.Time // when it was given up; zero: unknown

	MessageID     string
	Type          string
	ContentType   string
	CorrelationID string
	Priority      uint8
	Headers       map[string]string // without those that the fields above are made of
	Size          int               // of the body in bytes
	Body          []byte            // nil in lists
}

// historyHeaders are those that DeadLetter adds. A replay takes them off.
var historyHeaders = []string{ //nolint:gochecknoglobals // a constant list
	HeaderOriginalTopic, HeaderOriginalExchange, HeaderOriginalQueue, HeaderOriginalExpiration, HeaderRetryCount,
	HeaderQueuedAt, HeaderDiscardedAt, HeaderDiscardReason, HeaderException,
}

// isHistory reports whether a header tells of a dead letter's history, in the bus's words or in RabbitMQ's.
func isHistory(name string) bool {
	return slices.Contains(historyHeaders, name) || name == "x-death" || name == "x-delivery-count" ||
		strings.HasPrefix(name, "x-first-death-") || strings.HasPrefix(name, "x-last-death-")
}

// letterOf reads a dead letter. It takes what any program may have put into the store.
func letterOf(m *Message) *Letter {
	h := m.Headers
	l := &Letter{
		Topic: h[HeaderOriginalTopic], Exchange: h[HeaderOriginalExchange], Queue: h[HeaderOriginalQueue],
		Reason: h[HeaderDiscardReason], Exception: h[HeaderException],
		QueuedAt: readTime(h[HeaderQueuedAt]), DiscardedAt: readTime(h[HeaderDiscardedAt]),
		MessageID: m.ID, Type: m.Type, ContentType: m.ContentType, CorrelationID: m.CorrelationID, Priority: m.Priority,
		Headers: withoutHistory(h), Size: len(m.Body), Body: m.Body,
	}
	if l.Topic == "" {
		l.Topic = strings.TrimPrefix(m.RoutingKey, DeadLetterKey)
	}
	if l.QueuedAt.IsZero() {
		l.QueuedAt = m.Timestamp
	}
	if n, err := strconv.Atoi(h[HeaderRetryCount]); err == nil {
		l.RetryCount = n
	}
	if group, named := strings.CutPrefix(l.Queue, l.Topic+"."); named {
		l.Handler = group
	}
	l.ID = letterID(m)
	return l
}

func letterID(m *Message) string {
	sum := sha256.New()
	for _, part := range []string{m.ID, m.Headers[HeaderOriginalQueue], m.Headers[HeaderDiscardedAt]} {
		_, _ = fmt.Fprintf(sum, "%d:%s", len(part), part) // a hash never fails
	}
	if m.ID == "" || m.Headers[HeaderDiscardedAt] == "" {
		_, _ = fmt.Fprintf(sum, "%s:", m.RoutingKey)
		_, _ = sum.Write(m.Body)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

func withoutHistory(headers map[string]string) map[string]string {
	kept := maps.Clone(headers)
	maps.DeleteFunc(kept, func(name, _ string) bool { return isHistory(name) })
	return kept
}

func readTime(s string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return at
}

// LetterOrder is how ListLetters goes through the store.
type LetterOrder int

// The orders.
const (
	NewestFirst LetterOrder = iota
	OldestFirst
)

// LetterPage is the part of a list that is wanted.
type LetterPage struct {
	Order LetterOrder
	Limit int    // 1 to MaxLetters. Default 100
	After string // the id of the last letter of the page before; empty: from the beginning
}

// LetterList is one page.
type LetterList struct {
	Letters []*Letter // without their bodies
	Total   int64     // letters in the store
	Matched int64     // those that the filter matches, on all pages
}

// ListLetters lists dead letters that a filter matches. It reads the whole store, and holds no more of it than the page.
// Reading waits, while ctx lasts, for another reader of the store to finish. ErrNoLetter: After is not there any more.
func (b *Bus) ListLetters(ctx context.Context, f LetterFilter, p LetterPage) (*LetterList, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	if p.Limit == 0 {
		p.Limit = 100
	}
	if p.Limit < 0 || p.Limit > MaxLetters {
		return nil, fmt.Errorf("%w: limit %d; it is 1 to %d", ErrInvalid, p.Limit, MaxLetters)
	}
	list, page := &LetterList{}, &window{page: p, begun: p.After == "" || p.Order == NewestFirst}
	err := b.readLetters(ctx, letterReader{
		opened: func(total int64) { list.Total = total },
		each: func(l *Letter, _ Delivery) error {
			matched := f.matches(l)
			if matched {
				list.Matched++
			}
			page.pass(l, matched)
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	if p.After != "" && !page.found {
		return nil, fmt.Errorf("%w: %.64q, after which the page begins; list from the beginning", ErrNoLetter, p.After)
	}
	if list.Letters = page.letters; p.Order == NewestFirst {
		slices.Reverse(list.Letters)
	}
	return list, nil
}

// window keeps the letters of one page while all pass by, the oldest first.
type window struct {
	page    LetterPage
	begun   bool // past the beginning of the page
	found   bool // After has passed
	letters []*Letter
}

func (w *window) pass(l *Letter, matched bool) {
	l.Body = nil
	if w.page.After == l.ID {
		w.found, w.begun = true, w.page.Order == OldestFirst
		return
	}
	if !matched || !w.begun {
		return
	}
	switch {
	case len(w.letters) < w.page.Limit:
		w.letters = append(w.letters, l)
	case w.page.Order == NewestFirst: // the oldest of them is not on the page after all
		copy(w.letters, w.letters[1:])
		w.letters[len(w.letters)-1] = l
	}
}

// ShowLetter returns one dead letter with its body. ErrNoLetter: it is not there (any more).
func (b *Bus) ShowLetter(ctx context.Context, id string) (*Letter, error) {
	var found *Letter
	err := b.readLetters(ctx, letterReader{each: func(l *Letter, _ Delivery) error {
		if l.ID == id {
			found = l
			return io.EOF
		}
		return nil
	}})
	switch {
	case err != nil:
		return nil, err
	case found == nil:
		return nil, fmt.Errorf("%w: %.64q; it was replayed, discarded, or dropped by a limit of the store", ErrNoLetter, id)
	}
	return found, nil
}

// letterReader is what goes through the store. All but each may be nil.
type letterReader struct {
	opened func(total int64)
	each   func(*Letter, Delivery) error // io.EOF ends the reading without an error
	finish func()                        // waits for what was begun, before the reading is closed
}

// readLetters goes through the store, the oldest letter first.
func (b *Bus) readLetters(ctx context.Context, r letterReader) (err error) {
	if r.finish != nil {
		r.finish = sync.OnceFunc(r.finish)
		defer r.finish()
	}
	reading, err := b.driver.Letters(ctx)
	if err != nil {
		return fmt.Errorf("cannot read the dead letters: %w", err)
	}
	defer func() {
		if r.finish != nil {
			r.finish()
		}
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.cfg.CloseTimeout)
		defer cancel()
		err = errors.Join(err, reading.Close(closing))
	}()
	if r.opened != nil {
		r.opened(reading.Count())
	}
	for {
		d, err := reading.Next(ctx)
		if err == nil {
			err = r.each(letterOf(d.Message()), d)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the dead letters: %w", err)
		}
	}
}
