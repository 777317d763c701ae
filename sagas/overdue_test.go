package sagas_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/sagas"
)

// charging is orders that charges at once, and gives the payment so long; 0: as long as it takes.
func charging(limit time.Duration) sagas.Definition[Order] {
	d := orders()
	d.Start[0] = sagas.When(ofOrder("order.placed"), "charging", func(o *Order, e *OrderEvent) error { o.ID = e.Order; return nil })
	d.States = d.States[1:]
	if limit > 0 {
		d.States[0].On = append(d.States[0].On, sagas.After[Order](limit, sagas.Compensating, nil))
	}
	return d
}

// hangs is a payment that answers no charge, and says when it is asked for one.
func hangs(asked chan<- struct{}) func(ctx context.Context, method, key string) (jsontext.Value, error) {
	return func(ctx context.Context, method, _ string) (jsontext.Value, error) {
		if method != "charge" {
			return nil, nil
		}
		asked <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
}

// A state's time holds while its call is under way: the call is given up, its outcome is unknown, and so it is undone.
func TestTimeoutDuringACall(t *testing.T) { synctest.Test(t, testTimeoutDuringACall) }

func testTimeoutDuringACall(t *testing.T) {
	w := newWorld(t)
	asked := make(chan struct{}, 1000)
	w.calls.set(hangs(asked))
	r := w.start(true, built(t, charging(5*time.Second)))
	r.publish(t, "order.placed", "o-1")
	i := r.becomes(t, "o-1", sagas.Compensated)
	require.Equal(t, `timeout in state "charging"`, i.Reason)
	require.Less(t, i.Changed.Sub(i.Started), 6*time.Second)
	require.Equal(t, []string{"order.placed -> charging running", "timeout -> charging compensating", "answer -> charging compensated"}, r.history(t, "o-1"))
	require.Len(t, w.calls.seen(), 2)
}

// Where both are due when a process starts, the state's time is over, and no call is made for it.
func TestTimeoutAndCallAreDueAtAStart(t *testing.T) {
	synctest.Test(t, testTimeoutAndCallAreDueAtAStart)
}

func testTimeoutAndCallAreDueAtAStart(t *testing.T) {
	w := newWorld(t)
	asked := make(chan struct{}, 1000)
	w.calls.set(hangs(asked))
	saga := built(t, charging(5*time.Second))
	first := w.start(true, saga)
	first.publish(t, "order.placed", "o-1")
	<-asked
	first.stop()
	<-time.After(10 * time.Second)
	second := w.start(true, saga)
	second.becomes(t, "o-1", sagas.Compensated)
	require.Empty(t, asked)
	require.Len(t, w.calls.seen(), 2, "a charge and a refund")
}

// A time that the definition has no more neither ends the call nor holds it back.
func TestLostTimeoutOfACall(t *testing.T) { synctest.Test(t, testLostTimeoutOfACall) }

func testLostTimeoutOfACall(t *testing.T) {
	w := newWorld(t)
	asked := make(chan struct{}, 1000)
	w.calls.set(hangs(asked))
	first := w.start(true, built(t, charging(5*time.Second)))
	first.publish(t, "order.placed", "o-1")
	<-asked
	first.stop()
	w.calls.set(func(ctx context.Context, _, _ string) (jsontext.Value, error) {
		select {
		case <-time.After(10 * time.Second):
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	second := w.start(true, built(t, charging(0)))
	second.becomes(t, "o-1", sagas.Completed)
	require.Len(t, w.calls.seen(), 2)
}
