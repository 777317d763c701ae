package bustest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// replaying is what a bus does with dead letters, on every driver alike.
func replaying() []testCase {
	return []testCase{
		{
			name: "ReplayReachesTheFailedOneAlone", run: replayReachesOne,
			why: "a replay must not repeat an event for the subscriptions that had handled it",
		},
		{
			name: "ReplayKeepsLettersOfQueuesThatAreGone", run: replayKeeps,
			why: "an event whose subscription is gone must not vanish with a replay",
		},
		{
			name: "LettersAreListedByFilterAndPage", run: lettersListed,
			why: "who looks for one letter among thousands must find it",
		},
		{
			name: "DiscardRemovesWhatMatchesAlone", run: discardMatching,
			why: "what was not meant must stay",
		},
	}
}

// all is every letter of the case's topic.
func (f *fixture) all() bus.LetterFilter { return bus.LetterFilter{Topic: f.topic} }

// letters waits until so many dead letters of the case's topic are in the store, and returns them, the oldest first.
func (f *fixture) letters(b *bus.Bus, n int) []*bus.Letter {
	f.Helper()
	var list *bus.LetterList
	require.Eventually(f, func() bool {
		var err error
		list, err = b.ListLetters(f.ctx(), f.all(), bus.LetterPage{Order: bus.OldestFirst, Limit: bus.MaxLetters})
		return err == nil && list.Matched == int64(n)
	}, patience, 20*time.Millisecond, "%d dead letters", n)
	return list.Letters
}

func replayReachesOne(f *fixture) {
	b := f.node()
	var broken atomic.Bool
	broken.Store(true)
	mended := make(chan *bus.Received, 100)
	healthy := f.handle(b, "healthy", bus.SubscriptionOptions{})
	require.NoError(f, b.HandleRaw(f.topic, "failing", func(_ context.Context, r *bus.Received) error {
		if broken.Load() {
			return bus.Permanent(errBroken)
		}
		mended <- r
		return nil
	}, bus.SubscriptionOptions{}))
	f.run(b)
	const events = 5
	for i := range events {
		f.publish(b, &Noted{Number: int64(i)}, bus.PublishOptions{
			PartitionKey: "one", CorrelationID: "c", Expiration: time.Hour, Headers: map[string]string{"tenant": "blue", "x-own": "kept"}})
		require.Equal(f, int64(i), number(f, next(f, "an event for the healthy handler", healthy)))
	}
	letters := f.letters(b, events)
	require.Equal(f, f.topic+".bannou.failing", letters[0].Queue)
	require.Equal(f, "bannou.failing", letters[0].Handler)
	require.Equal(f, bus.DiscardPermanent, letters[0].Reason)
	require.Contains(f, letters[0].Exception, errBroken.Error())
	require.Equal(f, "NotedEvent", letters[0].Type)
	require.Nil(f, letters[0].Body, "lists are without bodies")
	shown, err := b.ShowLetter(f.ctx(), letters[0].ID)
	require.NoError(f, err)
	require.Len(f, shown.Body, letters[0].Size)

	broken.Store(false)
	dry, err := b.ReplayLetters(f.ctx(), f.all(), bus.SettleOptions{DryRun: true})
	require.NoError(f, err)
	require.EqualValues(f, events, dry.Done)
	require.Len(f, dry.IDs, events)
	f.letters(b, events)

	steps := 0
	done, err := b.ReplayLetters(f.ctx(), f.all(), bus.SettleOptions{Progress: func(bus.LetterProgress) { steps++ }})
	require.NoError(f, err)
	require.EqualValues(f, events, done.Done)
	require.Zero(f, done.Failed)
	require.Positive(f, steps)
	for i := range events {
		r := next(f, "a replayed event", mended)
		require.Equal(f, int64(i), number(f, r), "in order, for they have one partition key")
		require.Equal(f, 1, r.Attempt, "a first delivery")
		require.Equal(f, f.topic, r.Topic)
		require.Equal(f, "c", r.CorrelationID)
		require.Equal(f, "blue", r.Headers["tenant"])
		require.Equal(f, "kept", r.Headers["x-own"])
		require.NotContains(f, r.Headers, bus.HeaderOriginalQueue, "its history is gone")
		require.NotContains(f, r.Headers, bus.HeaderException)
	}
	f.letters(b, 0)
	none(f, "a replayed event for the healthy handler", healthy)
	_, err = b.ShowLetter(f.ctx(), letters[0].ID)
	require.ErrorIs(f, err, bus.ErrNoLetter)
	again, err := b.ReplayLetters(f.ctx(), f.all(), bus.SettleOptions{})
	require.NoError(f, err)
	require.Zero(f, again.Matched)
}

func replayKeeps(f *fixture) {
	d := f.setup.Node(f)
	b := f.node()
	f.store(d, 3) // of a queue that does not exist
	require.NoError(f, d.Publish(f.ctx(), &bus.Message{
		Exchange: f.deadLetterExchange(), RoutingKey: bus.DeadLetterKey + f.topic, ID: "foreign", Body: []byte("not JSON")}))
	f.letters(b, 4)
	done, err := b.ReplayLetters(f.ctx(), f.all(), bus.SettleOptions{})
	require.NoError(f, err)
	require.EqualValues(f, 4, done.Failed)
	require.Zero(f, done.Done)
	gone, unknown := 0, 0
	for _, failure := range done.Failures {
		switch {
		case errors.Is(failure.Err, bus.ErrUnroutable):
			gone++
		case errors.Is(failure.Err, bus.ErrInvalid):
			unknown++
		}
	}
	require.Equal(f, []int{3, 1}, []int{gone, unknown}, "%v", done.Failures)
	f.letters(b, 4)
}

func lettersListed(f *fixture) {
	d := f.setup.Node(f)
	b := f.node()
	f.store(d, 10)
	all := f.letters(b, 10)
	ids := make(map[string]bool)
	for i, l := range all {
		ids[l.ID] = true
		if i > 0 {
			require.False(f, l.DiscardedAt.Before(all[i-1].DiscardedAt), "the oldest first")
		}
	}
	require.Len(f, ids, 10, "each letter has an id of its own")
	for _, order := range []bus.LetterOrder{bus.NewestFirst, bus.OldestFirst} {
		seen, after := []string{}, ""
		for range 4 {
			page, err := b.ListLetters(f.ctx(), f.all(), bus.LetterPage{Order: order, Limit: 3, After: after})
			require.NoError(f, err)
			require.EqualValues(f, 10, page.Matched)
			for _, l := range page.Letters {
				after = l.ID
				seen = append(seen, l.ID)
			}
		}
		require.Len(f, seen, 10)
		if order == bus.OldestFirst {
			require.Equal(f, []string{all[0].ID, all[9].ID}, []string{seen[0], seen[9]})
		} else {
			require.Equal(f, []string{all[9].ID, all[0].ID}, []string{seen[0], seen[9]})
		}
	}
	for name, c := range map[string]struct {
		filter bus.LetterFilter
		want   int64
	}{
		"ids":       {bus.LetterFilter{IDs: []string{all[3].ID, all[5].ID, "none"}}, 2},
		"pattern":   {bus.LetterFilter{Topic: "bustest.#", Queue: f.topic + ".q"}, 10},
		"no topic":  {bus.LetterFilter{Topic: "bustest.*.x", Queue: f.topic + ".q"}, 0},
		"handler":   {bus.LetterFilter{Topic: f.topic, Handler: "q"}, 10},
		"reason":    {bus.LetterFilter{Topic: f.topic, Reason: bus.DiscardExpired}, 0},
		"exception": {bus.LetterFilter{Topic: f.topic, ErrorContains: "ON FIRE"}, 10},
		"since":     {bus.LetterFilter{Topic: f.topic, Since: all[4].DiscardedAt}, 6},
		"until":     {bus.LetterFilter{Topic: f.topic, Until: all[4].DiscardedAt}, 4},
	} {
		list, err := b.ListLetters(f.ctx(), c.filter, bus.LetterPage{})
		require.NoError(f, err)
		require.Equal(f, c.want, list.Matched, name)
	}
	_, err := b.ListLetters(f.ctx(), f.all(), bus.LetterPage{Limit: bus.MaxLetters + 1})
	require.ErrorIs(f, err, bus.ErrInvalid)
	_, err = b.ListLetters(f.ctx(), f.all(), bus.LetterPage{After: "none"})
	require.ErrorIs(f, err, bus.ErrNoLetter)
	_, err = b.ListLetters(f.ctx(), bus.LetterFilter{Since: time.Unix(2, 0), Until: time.Unix(1, 0)}, bus.LetterPage{})
	require.ErrorIs(f, err, bus.ErrInvalid)
}

func discardMatching(f *fixture) {
	d := f.setup.Node(f)
	b, other := f.node(), f.node()
	f.store(d, 6)
	all := f.letters(b, 6)
	results := make(chan error, 2)
	for _, node := range []*bus.Bus{b, other} { // two at once: each letter goes once
		go func() {
			done, err := node.DiscardLetters(f.ctx(), bus.LetterFilter{IDs: []string{all[1].ID, all[4].ID}}, bus.SettleOptions{})
			if err == nil && done.Done != 0 && done.Done != 2 {
				err = fmt.Errorf("%d were discarded", done.Done)
			}
			results <- err
		}()
	}
	require.NoError(f, <-results)
	require.NoError(f, <-results)
	left := f.letters(b, 4)
	require.Equal(f, []string{all[0].ID, all[2].ID, all[3].ID, all[5].ID}, []string{left[0].ID, left[1].ID, left[2].ID, left[3].ID})
	done, err := b.DiscardLetters(f.ctx(), f.all(), bus.SettleOptions{})
	require.NoError(f, err)
	require.EqualValues(f, 4, done.Done)
	f.letters(b, 0)
}
