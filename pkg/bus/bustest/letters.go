package bustest

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// letters is what replaying and discarding dead letters rely on in a driver.
func letters() []testCase {
	return []testCase{
		{
			name: "LettersStayUntilAcknowledged", run: lettersStay,
			why: "looking at dead letters must neither lose them nor mix them up",
		},
		{
			name: "LettersHaveOneReader", run: lettersHaveOneReader,
			why: "two replays at once would deliver everything twice",
		},
		{
			name: "RedeliverReachesOneQueueAlone", run: redeliverReachesOne,
			why: "a replay must not repeat an event for those who had handled it",
		},
	}
}

// store puts n dead letters of the case's topic into the store.
func (f *fixture) store(d bus.Driver, n int) {
	f.Helper()
	for i := range n {
		letter := bus.DeadLetter(f.message(byte(i)), bus.Discard{
			Exchange: "bannou", DeadLetterExchange: f.deadLetterExchange(), Queue: f.topic + ".q",
			Reason: bus.DiscardPermanent, Attempt: 1, Err: errBroken, At: time.Now(),
		})
		require.NoError(f, d.Publish(f.ctx(), letter))
	}
}

func (f *fixture) deadLetterExchange() string {
	if name := f.setup.Config.DeadLetterExchange; name != "" {
		return name
	}
	return "bannou-dlx"
}

// readLetters reads the whole store and returns the numbers of the case's own letters; ack says which go.
func (f *fixture) readLetters(d bus.Driver, ack func(n byte) bool) (numbers []byte) {
	f.Helper()
	l, err := d.Letters(f.ctx())
	require.NoError(f, err)
	defer func() { require.NoError(f, l.Close(f.ctx())) }()
	read := int64(0)
	for {
		x, err := l.Next(f.ctx())
		if errors.Is(err, io.EOF) {
			require.LessOrEqual(f, read, l.Count(), "no more than there were when it was opened")
			return numbers
		}
		require.NoError(f, err)
		read++
		m := x.Message()
		if m.Headers[bus.HeaderOriginalTopic] != f.topic {
			require.NoError(f, x.Requeue())
			continue
		}
		n := m.Body[0]
		numbers = append(numbers, n)
		if ack(n) {
			require.NoError(f, x.Ack())
			require.NoError(f, x.Requeue(), "the second word changes nothing")
		}
	}
}

func lettersStay(f *fixture) {
	d := f.setup.Node(f)
	f.store(d, 5)
	all := func(want ...byte) {
		f.Helper()
		require.Eventually(f, func() bool {
			return string(f.readLetters(d, func(byte) bool { return false })) == string(want)
		}, patience, 10*time.Millisecond, "want %v in this order", want)
	}
	all(0, 1, 2, 3, 4)
	l, err := d.Letters(f.ctx())
	require.NoError(f, err)
	_, err = l.Next(f.ctx())
	require.NoError(f, err)
	require.NoError(f, l.Close(f.ctx()), "a reading that ends early")
	all(0, 1, 2, 3, 4)
	f.readLetters(d, func(n byte) bool { return n%2 == 1 })
	all(0, 2, 4)
	f.readLetters(d, func(byte) bool { return true })
	all()
}

func lettersHaveOneReader(f *fixture) {
	first, second := f.setup.Node(f), f.setup.Node(f)
	l, err := first.Letters(f.ctx())
	require.NoError(f, err)
	for _, d := range []bus.Driver{first, second} {
		short, cancel := context.WithTimeout(f.ctx(), 200*time.Millisecond)
		_, err = d.Letters(short)
		cancel()
		require.ErrorIs(f, err, bus.ErrUnavailable)
		require.ErrorIs(f, err, context.DeadlineExceeded)
	}
	require.NoError(f, l.Close(f.ctx()))
	l, err = second.Letters(f.ctx())
	require.NoError(f, err, "free once its reader has gone")
	require.NoError(f, l.Close(f.ctx()))
}

func redeliverReachesOne(f *fixture) {
	d := f.setup.Node(f)
	one, two := make(chan bus.Delivery, 10), make(chan bus.Delivery, 10)
	f.consume(f.durable("one", 5), func(x bus.Delivery) { one <- x })
	f.consume(f.durable("two", 5), func(x bus.Delivery) { two <- x })
	m := f.message(1)
	m.Headers["tenant"] = "blue"
	require.NoError(f, d.Redeliver(f.ctx(), f.topic+".one", m))
	x := next(f, "what was redelivered", one)
	require.Equal(f, 1, x.Attempt(), "a first delivery")
	require.Equal(f, f.topic, x.Message().RoutingKey)
	require.Equal(f, m.ID, x.Message().ID)
	require.Equal(f, m.Body, x.Message().Body)
	require.Equal(f, "blue", x.Message().Headers["tenant"])
	require.NoError(f, x.Ack())
	none(f, "a redelivery in the other queue", two)
	require.ErrorIs(f, d.Redeliver(f.ctx(), f.topic+".gone", m), bus.ErrUnroutable)
}
