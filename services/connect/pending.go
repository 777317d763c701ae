package connect

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/websocket"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// pending are the events of a connection that were sent, or are about to be, and are not acknowledged. They have the sequences
// first, first+1 and so on.
type pending struct {
	mu     sync.Mutex
	first  uint32
	events []sentEvent
	over   bool
}

type sentEvent struct {
	delivery bus.Delivery
	at       time.Time
}

// add gives an event its sequence; false: the connection has ended.
func (p *pending) add(d bus.Delivery, now time.Time) (sequence uint32, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return 0, false
	}
	if p.first == 0 {
		p.first = 1
	}
	p.events = append(p.events, sentEvent{d, now})
	return p.first + uint32(len(p.events)) - 1, true
}

// acknowledge settles all events up to a sequence, and says how many there were. What is not pending is none.
func (p *pending) acknowledge(sequence uint32) (n int) {
	p.mu.Lock()
	if p.over || p.first == 0 || sequence < p.first || sequence >= p.first+uint32(len(p.events)) {
		p.mu.Unlock()
		return 0
	}
	n = int(sequence-p.first) + 1
	settled := make([]bus.Delivery, n)
	for i := range settled {
		settled[i] = p.events[i].delivery
	}
	p.events = append([]sentEvent(nil), p.events[n:]...)
	p.first += uint32(n)
	p.mu.Unlock()
	for _, d := range settled {
		_ = d.Ack() // one that the broker does not hear of comes again
	}
	return n
}

// oldest is when the event was sent that waits for longest; zero: none waits.
func (p *pending) oldest() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.events) == 0 {
		return time.Time{}
	}
	return p.events[0].at
}

// giveBack puts all of them back into the queue.
func (p *pending) giveBack() {
	p.mu.Lock()
	events := p.events
	p.events, p.over = nil, true
	p.mu.Unlock()
	for _, e := range events {
		_ = e.delivery.Requeue() // the broker does it when the connection to it ends, otherwise
	}
}

// deliver sends the session's events as they come, while there is room.
func (v *session) deliver() {
	defer v.delivering.Done()
	prefix := "session." + v.id + "."
	for {
		var d bus.Delivery
		var ok bool
		select {
		case d, ok = <-v.consumer.Deliveries():
		case <-v.life.Done():
			return
		}
		if !ok { // the driver was closed, or the queue is gone
			v.bereft()
			return
		}
		m := d.Message()
		sequence, ok := v.pending.add(d, time.Now())
		if !ok {
			_ = d.Requeue()
			return
		}
		frame := outFrame{kind: websocket.TextMessage, data: encode(textPush{Event: &textEvent{
			Sequence: sequence, Name: strings.TrimPrefix(m.RoutingKey, prefix), ID: m.ID, Type: m.Type, Body: eventBody(m),
		}})}
		if v.autoAck {
			frame.written = func() { v.pending.acknowledge(sequence) }
		}
		if !v.out.putPatiently(frame, v.life.Done()) {
			return
		}
		v.s.meter.event(v.life)
	}
}

// bereft ends a connection whose queue is gone. The record knows why, if it is not the node that ends.
func (v *session) bereft() {
	ctx, cancel := context.WithTimeout(v.life, giveBackTimeout)
	defer cancel()
	_ = v.s.look(ctx, v)
	v.close(goElsewhere())
}

func eventBody(m *bus.Message) jsontext.Value {
	if v := asJSON(m.Body); v != nil {
		return v
	}
	return jsontext.Value("null")
}
