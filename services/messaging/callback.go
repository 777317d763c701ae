package messaging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/egress"
)

// A subscription is a queue whose events are sent to a callback, or copied to an exchange.
type subscription struct {
	record  record
	service *Service
	queue   *bus.Subscription
	gone    atomic.Bool // the callback said that it is no longer interested, and the subscription is being removed
	kept    bool        // the store has it; the service's lock guards this
}

// deliver sends one event. Its error decides what the bus does with the event: nil acknowledges, a Permanent one goes to
// the dead letters at once, one of a callback that asks for a pause is retried after that, any other is retried first.
func (sub *subscription) deliver(ctx context.Context, e *bus.Received) error {
	request, err := sub.request(ctx, e)
	if err != nil {
		return bus.Permanent(err)
	}
	response, err := sub.service.client.Do(request)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, whose query may hold a secret
		}
		err = fmt.Errorf("callback of subscription %s: %w", sub.record.ID, err)
		if errors.Is(err, egress.ErrNotAllowed) {
			return bus.Permanent(err)
		}
		return err
	}
	// A body that is read to its end leaves the connection for the next call.
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10)
	_ = response.Body.Close()
	switch {
	case response.StatusCode >= 200 && response.StatusCode < 300:
		return nil
	case response.StatusCode == http.StatusGone:
		sub.unsubscribe()
		return nil
	}
	err = fmt.Errorf("callback of subscription %s answered %s", sub.record.ID, response.Status)
	if response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable {
		return bus.RetryAfter(err, pauseAsked(response.Header.Get("Retry-After"), time.Now()))
	}
	return err
}

// pauseAsked is the pause that a Retry-After header asks for, as seconds or as a date; 0 when it asks for none, or for
// what cannot be read.
func pauseAsked(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(header, 10, 64); err == nil {
		return time.Duration(min(max(seconds, 0), int64(bus.MaxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return max(at.Sub(now), 0)
}

// request is the event's own body as POST, with its properties as headers.
func (sub *subscription) request(ctx context.Context, e *bus.Received) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, sub.record.CallbackURL, bytes.NewReader(e.Body))
	if err != nil {
		return nil, fmt.Errorf("callback of subscription %s cannot be called", sub.record.ID)
	}
	h := request.Header
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h)) // the bus puts the event's trace into ctx
	contentType := e.ContentType
	if contentType == "" {
		contentType = "application/json"
	}
	h.Set("Content-Type", oneLine(contentType))
	h.Set("User-Agent", "bannou")
	h.Set("Bannou-Topic", oneLine(e.Topic))
	h.Set("Bannou-Message-Id", oneLine(e.MessageID))
	h.Set("Bannou-Delivery-Attempt", strconv.Itoa(e.Attempt))
	return request, nil
}

// unsubscribe ends the subscription beside the delivery that asked for it: a queue is not removed before its deliveries are
// settled. If that fails, the next delivery that is answered so asks again.
func (sub *subscription) unsubscribe() {
	if !sub.gone.CompareAndSwap(false, true) {
		return
	}
	s := sub.service
	s.background(func(life context.Context) {
		ctx, cancel := context.WithTimeout(life, s.cfg.SubscribeTimeout)
		defer cancel()
		if _, err := s.remove(ctx, sub.record.ID, false); err != nil {
			s.cfg.Logger.Error("a subscription whose callback is gone could not be removed; its next answer 410 has it removed",
				"subscription", sub.record.ID, "error", err)
			sub.gone.Store(false)
			return
		}
		s.cfg.Logger.Info("a subscription ended: its callback answered 410", "subscription", sub.record.ID)
	})
}

// background runs fn under the service's life, unless that has ended.
func (s *Service) background(fn func(life context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.work.Go(func() { fn(s.life) })
	}
}
