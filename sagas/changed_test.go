package sagas_test

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/sagas"
)

// renamed is orders whose first state has another name, in the same version.
func renamed() sagas.Definition[Order] {
	d := orders()
	d.States[0].Name = "holding"
	d.Start[0] = sagas.When(ofOrder("order.placed"), "holding", func(o *Order, e *OrderEvent) error { o.ID = e.Order; return nil })
	return d
}

// decided is an instance after messages, each of which leaves something to be entered.
func decided(t *testing.T, s *sagas.Saga, i sagas.Instance, messages ...sagas.Message) sagas.Instance {
	for _, m := range messages {
		if m.Kind == "" {
			m.Kind, m.Body = sagas.KindEvent, []byte(`{"order":"o"}`)
		}
		if m.Kind != sagas.KindEvent && i.Work != nil {
			m.Work = i.Work.ID
		}
		m.ID = string(m.Kind) + m.Topic + time.Now().String()
		turn := s.Decide(i, m, time.Now())
		require.False(t, turn.Nothing, "%s: %s", m.Kind, turn.Reason)
		i = turn.Instance
	}
	return i
}

// An instance in a state that its definition does not have any more parks with what came, and goes on with it when the state is there again.
func TestStateThatTheDefinitionHasLost(t *testing.T) {
	before, after := built(t, orders()), built(t, renamed())
	reserving := decided(t, before, sagas.Instance{Saga: "order", Key: "o"}, sagas.Message{Topic: "order.placed"})
	for _, m := range []sagas.Message{{Topic: "stock.reserved"}, {Kind: sagas.KindTimeout, Entry: 1}} {
		i := decided(t, after, reserving, m)
		require.Equal(t, sagas.Parked, i.Status)
		require.Contains(t, i.Parked.Reason, `state "reserving" is not in this definition`)
		turn := after.Decide(i, sagas.Message{ID: "r", Kind: sagas.KindRetry}, time.Now())
		require.True(t, turn.Nothing)
		require.Contains(t, turn.Reason, `state "reserving" is not in this definition`)
		i = decided(t, before, i, sagas.Message{Kind: sagas.KindRetry})
		require.Equal(t, m.Topic == "stock.reserved", i.State == "charging", "%s: %v", m.Kind, i)
		require.Equal(t, m.Topic == "", i.Status == sagas.Undoing, "%s: %v", m.Kind, i)
	}

	lost := orders()
	lost.States[1].Name = "paying"
	lost.States[0].On[0] = sagas.When[Order](ofOrder("stock.reserved"), "paying", nil)
	charging := decided(t, before, reserving, sagas.Message{Topic: "stock.reserved"})
	for _, m := range []sagas.Message{{Kind: sagas.KindAnswer, Body: jsontext.Value("{}")}, {Kind: sagas.KindRefusal, Body: jsontext.Value(`{"status":409}`)}} {
		i := decided(t, built(t, lost), charging, m)
		require.Equal(t, sagas.Parked, i.Status)
		require.Contains(t, i.Parked.Reason, `state "charging" is not in this definition`)
		i = decided(t, before, i, sagas.Message{Kind: sagas.KindRetry})
		require.Equal(t, m.Kind == sagas.KindAnswer, i.Status == sagas.Completed, "%s: %v", m.Kind, i)
		require.Equal(t, m.Kind == sagas.KindRefusal, i.Status == sagas.Undoing, "%s: %v", m.Kind, i)
	}
}

// What an instance owes to a state that its definition does not have any more cannot be undone: it parks, however often a person asks.
func TestUndoThatTheDefinitionHasLost(t *testing.T) {
	before, after := built(t, orders()), built(t, renamed())
	reserving := decided(t, before, sagas.Instance{Saga: "order", Key: "o"}, sagas.Message{Topic: "order.placed"})
	undoing := decided(t, before, reserving, sagas.Message{Kind: sagas.KindCompensate})
	parked := undoing
	parked.Status, parked.Parked = sagas.Parked, &sagas.Parking{From: sagas.Undoing}
	undone := decided(t, before, reserving, sagas.Message{Topic: "stock.reserved"}, sagas.Message{Kind: sagas.KindRefusal})
	require.Equal(t, "charging", undone.Work.State)
	for what, i := range map[string]sagas.Instance{
		"compensate":                    decided(t, after, reserving, sagas.Message{Kind: sagas.KindCompensate}),
		"repeat":                        decided(t, after, undoing, sagas.Message{Kind: sagas.KindRepeat}),
		"retry":                         decided(t, after, parked, sagas.Message{Kind: sagas.KindRetry}),
		"the undo of the step after it": decided(t, after, undone, sagas.Message{Kind: sagas.KindAnswer}),
	} {
		for range 2 {
			require.Equal(t, sagas.Parked, i.Status, what)
			require.Contains(t, i.Parked.Reason, `the undo of "reserving" cannot be made: state "reserving" is not in this definition`, what)
			i = decided(t, after, i, sagas.Message{Kind: sagas.KindRetry})
		}
		i = decided(t, before, i, sagas.Message{Kind: sagas.KindRetry}, sagas.Message{Topic: "stock.released"})
		require.Equal(t, sagas.Compensated, i.Status, what)
	}
}
