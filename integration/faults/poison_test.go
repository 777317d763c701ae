package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// poisons are bodies that no handler of a load can decode.
func poisons() map[string]func() ([]byte, bus.PublishOptions) {
	as := func(body, contentType string) func() ([]byte, bus.PublishOptions) {
		return func() ([]byte, bus.PublishOptions) {
			return []byte(body), bus.PublishOptions{ContentType: contentType, Mandatory: true}
		}
	}
	return map[string]func() ([]byte, bus.PublishOptions){
		"empty":       as("", "application/octet-stream"),
		"not JSON":    as("}{ not JSON \x00\xff", "application/octet-stream"),
		"wrong types": as(`{"number":"seven","text":7}`, "application/json"),
		"10 MB, not JSON": func() ([]byte, bus.PublishOptions) {
			return bytes.Repeat([]byte{'x'}, 10_000_000), bus.PublishOptions{ContentType: "application/octet-stream", Mandatory: true}
		},
	}
}

// poisoned has bodies published that cannot be handled, and some that are hard to carry. Each poison is to become a dead
// letter of each subscription, and nothing else is.
func poisoned(times int) fault {
	p := &poison{ids: map[string]string{}, letters: map[string]map[string]string{}}
	return fault{name: "poison bodies", times: times, harm: p.harm, check: p.check}
}

type poison struct {
	ids      map[string]string // which poison, by message id
	consumer bus.Consumer
	read     sync.WaitGroup

	mu      sync.Mutex
	letters map[string]map[string]string // reason by message id and queue
}

func (p *poison) harm(ctx context.Context, r *run) error {
	if p.consumer == nil {
		if err := p.listen(ctx, r.driver); err != nil {
			return err
		}
	}
	for name, brew := range poisons() {
		body, o := brew()
		id, err := r.bus.PublishRaw(ctx, r.load.Topic, body, o)
		if err != nil {
			return fmt.Errorf("poison %s: %w", name, err)
		}
		p.ids[id] = name
	}
	if err := r.load.PublishLarge(ctx, 10_000_000); err != nil { // a good one of that size is handled
		return err
	}
	for name, body := range map[string][]byte{"empty": nil, "not JSON": []byte("not JSON"), "above the limit": make([]byte, 16<<20+1)} {
		if _, err := r.bus.PublishRaw(ctx, r.load.Topic, body, bus.PublishOptions{}); !errors.Is(err, bus.ErrInvalid) {
			return fmt.Errorf("a body that is %s: want it refused as invalid, got: %w", name, err)
		}
	}
	return nil
}

// listen reads the dead letters, as a program beside would.
func (p *poison) listen(ctx context.Context, d bus.Driver) error {
	c, err := d.Subscribe(ctx, bus.Queue{Name: "faults-letters", Prefetch: 10, Exclusive: true,
		Bindings: []bus.Binding{{Exchange: "bannou-dlx", Pattern: bus.DeadLetterKey + "#"}}})
	if err != nil {
		return err
	}
	p.consumer = c
	p.read.Go(func() {
		for d := range c.Deliveries() {
			m := d.Message()
			p.enter(m.ID, m.Headers[bus.HeaderOriginalQueue], m.Headers[bus.HeaderDiscardReason])
			_ = d.Ack() // it comes again otherwise
		}
	})
	return nil
}

func (p *poison) enter(id, queue, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.letters[id] == nil {
		p.letters[id] = map[string]string{}
	}
	p.letters[id][queue] = reason
}

func (p *poison) check(t *testing.T, r *run) {
	assert.EventuallyWithT(t, func(t *assert.CollectT) {
		p.mu.Lock()
		defer p.mu.Unlock()
		assert.Len(t, p.letters, len(p.ids), "dead letters")
		for id, name := range p.ids {
			want := map[string]string{}
			for s := range 2 {
				want[fmt.Sprintf("%s.bannou.load-%d", r.load.Topic, s)] = bus.DiscardUndecodable
			}
			assert.Equal(t, want, p.letters[id], name)
		}
	}, patience, pollPeriod)
	require.NoError(t, p.consumer.Close(within(t, patience)))
	p.read.Wait()
}
