package redisbus

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// account counts what was trimmed before a shard had read it, for all who read the stream. Nothing younger than the grace
// is trimmed, so only streams are looked at whose end was not seen for half of it, and those whose entries have no
// number yet. lists is what was just read, and not told yet.
func (s *shared) account(sh *shard, keys []string, lists map[string][]entry, begun time.Time) {
	doubtful := s.doubtful(sh, keys, lists, begun)
	if len(doubtful) == 0 {
		return
	}
	infos := s.describe(doubtful)
	for i, stream := range doubtful {
		s.mu.Lock()
		if w := sh.streams[stream]; w != nil {
			s.settle(stream, w, infos[i], lists[stream])
		}
		s.mu.Unlock()
	}
}

// describe asks Redis for streams' numbers, again where a connection is cut under the question: what was missed can be told
// only now, before what was read is.
func (s *shared) describe(streams []string) []*redis.XInfoStreamCmd {
	ctx, cancel := context.WithTimeout(s.d.closing, answerTimeout)
	defer cancel()
	for {
		pipeline := s.d.client.Pipeline()
		infos := make([]*redis.XInfoStreamCmd, len(streams))
		for i, stream := range streams {
			infos[i] = pipeline.XInfoStream(ctx, stream)
		}
		_, _ = pipeline.Exec(ctx) // each has its own error
		if !slices.ContainsFunc(infos, unanswered) {
			return infos
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return infos
		}
	}
}

// unanswered tells a question that Redis did not answer from one that it answered with an error, as that there is no stream.
func unanswered(info *redis.XInfoStreamCmd) bool {
	var answer redis.Error
	return info.Err() != nil && !errors.As(info.Err(), &answer)
}

// settle brings the number of a stream's entries up to date, and tells its readers what they have missed; the lock is
// held.
func (s *shared) settle(stream string, w *watched, info *redis.XInfoStreamCmd, list []entry) {
	if unanswered(info) && w.sure { // the number is right still, and the next look sees what is lost from here on
		w.whole = time.Time{}
		return
	}
	if info.Err() != nil { // the stream was deleted, with what it knew; or nobody knows what is missing before what was read
		w.number = -1
		return
	}
	lost, number := gap(info.Val(), mark{w.at, w.number}, list)
	if w.number = number; number >= 0 {
		w.number -= int64(len(list)) // which is added when it is told
	}
	if lost > 0 {
		for c := range w.readers {
			c.trimmed(stream, w.at, lost)
		}
	}
}

// doubtful are the streams of a shard of which something may have been trimmed unread.
func (s *shared) doubtful(sh *shard, keys []string, lists map[string][]entry, begun time.Time) (list []string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		w := sh.streams[key]
		if w == nil || len(w.readers) == 0 {
			continue
		}
		w.sure = len(lists[key]) == 0 || now.Sub(w.whole) < s.d.cfg.Grace
		if now.Sub(w.whole) > s.d.cfg.Grace/2 || w.number < 0 && len(lists[key]) > 0 {
			list = append(list, key)
		}
		if len(lists[key]) < readAtOnce {
			w.whole = begun
		}
	}
	return list
}

// gap is how many entries of a stream were trimmed between a mark and what was read from there, list, or after that; and
// the number of the last entry of the list, negative if that cannot be told. info is what Redis said of the stream then
// or since. It is never more than were trimmed, and less only where a number was not known: before the first entry of
// a topic that is new, where somebody deleted entries or the stream, and before Redis 7, which does not number them.
func gap(info *redis.XInfoStream, at mark, list []entry) (lost, number int64) {
	end := at.position
	if len(list) > 0 {
		end = list[len(list)-1].at
	}
	number = -1
	if end == parsePosition(info.LastGeneratedID) {
		number = info.EntriesAdded
	}
	if info.EntriesAdded < info.Length || info.EntriesAdded == 0 || parsePosition(info.MaxDeletedEntryID) != (position{}) {
		return 0, number
	}
	first := parsePosition(info.FirstEntry.ID)
	if info.Length > 0 && !at.less(first) { // nothing after the mark is gone
		if number < 0 && at.number >= 0 {
			number = at.number + int64(len(list))
		}
		return 0, number
	}
	gone := info.EntriesAdded - info.Length
	var read int64 // and gone
	for _, e := range list {
		if info.Length == 0 || e.at.less(first) {
			read++
		}
	}
	if at.number >= 0 {
		lost = max(0, gone-at.number-read)
	}
	return lost, gone + int64(len(list)) - read
}
