package redisbus

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// shardSize is how many streams one connection waits for; readAtOnce is how many entries of each it takes at a time.
const (
	shardSize  = 200
	readAtOnce = 100
)

// shared reads the streams of all consumers without a group: each stream once, whatever the number of its readers, and
// many streams with one command. It reads the news of topics and this driver's inbox too.
type shared struct {
	d       *Driver
	reading sync.WaitGroup

	stirred chan struct{}

	mu     sync.Mutex
	heard  bool // the news and the inbox are read
	shards []*shard
	where  map[string]*shard
}

// A shard is what one connection reads.
type shard struct {
	reader  blocked
	changed chan struct{}
	streams map[string]*watched
	stale   bool // it may wait for less than streams has
}

type watched struct {
	at      position  // up to which it has been read
	number  int64     // of the entry there, as Redis numbers a stream's; unknown: what is negative
	whole   time.Time // when nothing was left to read
	sure    bool      // nothing can have been trimmed between what was read last and what was read before
	readers map[*aloneConsumer]struct{}
}

// entry is an entry of a stream with its position.
type entry struct {
	at      position
	message redis.XMessage
}

func newShared(d *Driver) *shared {
	return &shared{d: d, stirred: make(chan struct{}, 1), where: make(map[string]*shard)}
}

// listen begins to read the news and the inbox, once.
func (s *shared) listen(ctx context.Context) error {
	s.mu.Lock()
	heard := s.heard
	s.mu.Unlock()
	if heard {
		return nil
	}
	last, err := lastMark(ctx, s.d.client, newsKey)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.heard = true
	s.mu.Unlock()
	s.watch(newsKey, last, nil)            //nolint:contextcheck // it outlives the call
	s.watch(inboxKey(s.d.id), mark{}, nil) //nolint:contextcheck // it outlives the call
	return nil
}

// watch has a consumer told of what comes in a stream after a position.
func (s *shared) watch(stream string, at mark, c *aloneConsumer) {
	s.mu.Lock()
	sh := s.where[stream]
	if sh == nil {
		sh = s.room()
		s.where[stream] = sh
		sh.stale = true
		sh.streams[stream] = &watched{at: at.position, number: at.number, whole: time.Now(), readers: make(map[*aloneConsumer]struct{})}
	}
	w := sh.streams[stream]
	if c != nil {
		w.readers[c] = struct{}{}
		if at.less(w.at) {
			c.missed(stream, w.at)
		}
	}
	s.mu.Unlock()
	for _, signal := range []chan struct{}{sh.changed, s.stirred} {
		select {
		case signal <- struct{}{}:
		default:
		}
	}
}

// wakeAgain is how soon a shard is woken again that had not begun to wait when it was woken.
const wakeAgain = 2 * time.Millisecond

// stir wakes the shards that have streams to read that they do not know of.
func (s *shared) stir() {
	for {
		select {
		case <-s.stirred:
		case <-s.d.closing.Done():
			return
		}
		for {
			stale := s.stale()
			if len(stale) == 0 {
				break
			}
			for _, sh := range stale {
				ctx, cancel := context.WithTimeout(s.d.closing, time.Second)
				sh.reader.wake(ctx)
				cancel()
			}
			select {
			case <-time.After(wakeAgain):
			case <-s.d.closing.Done():
				return
			}
		}
	}
}

func (s *shared) stale() (list []*shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sh := range s.shards {
		if sh.stale {
			list = append(list, sh)
		}
	}
	return list
}

// room is a shard with room for one more; the lock is held.
func (s *shared) room() *shard {
	for _, sh := range slices.Backward(s.shards) {
		if len(sh.streams) < shardSize {
			return sh
		}
	}
	if len(s.shards) == 0 {
		s.reading.Go(s.stir)
	}
	sh := &shard{reader: blocked{d: s.d}, changed: make(chan struct{}, 1), streams: make(map[string]*watched)}
	s.shards = append(s.shards, sh)
	s.reading.Go(func() { s.read(sh) })
	return sh
}

func (s *shared) unwatch(streams []string, c *aloneConsumer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stream := range streams {
		sh := s.where[stream]
		if sh == nil {
			continue
		}
		w := sh.streams[stream]
		delete(w.readers, c)
		if len(w.readers) == 0 {
			delete(sh.streams, stream)
			delete(s.where, stream)
		}
	}
}

// close waits for the readers, which the driver's end ends.
func (s *shared) close() {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.reading.Wait()
	}()
	s.mu.Lock()
	shards := slices.Clone(s.shards)
	s.mu.Unlock()
	for {
		select {
		case <-ended:
			return
		case <-time.After(10 * time.Millisecond):
		}
		for _, sh := range shards {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			sh.reader.wake(ctx)
			cancel()
		}
	}
}

func (s *shared) read(sh *shard) {
	defer sh.reader.close()
	pause := s.d.cfg.RetryDelay
	for s.d.closing.Err() == nil {
		keys, ids := s.asked(sh)
		if len(keys) == 0 {
			select {
			case <-sh.changed:
			case <-s.d.closing.Done():
			}
			continue
		}
		select {
		case <-sh.changed: // what it told is in keys
		default:
		}
		begun := time.Now()
		streams, err := ask(sh, keys, ids)
		if err != nil {
			s.d.log.Debug("streams cannot be read; trying again", "pause", pause, "error", err)
			select {
			case <-time.After(pause):
			case <-s.d.closing.Done():
			}
			pause = min(2*pause, s.d.cfg.MaxRetryDelay)
			continue
		}
		pause = s.d.cfg.RetryDelay
		lists := entries(streams)
		s.account(sh, keys, lists, begun)
		for stream, list := range lists {
			s.tell(sh, stream, list)
		}
	}
}

// asked is what a shard reads, and from where.
func (s *shared) asked(sh *shard) (keys, ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh.stale = false
	for _, key := range slices.Sorted(maps.Keys(sh.streams)) {
		keys, ids = append(keys, key), append(ids, sh.streams[key].at.String())
	}
	return keys, ids
}

func ask(sh *shard, keys, ids []string) (streams []redis.XStream, err error) {
	err = sh.reader.read(func(ctx context.Context, conn *redis.Conn) error {
		streams, err = conn.XRead(ctx, &redis.XReadArgs{Streams: slices.Concat(keys, ids), Count: readAtOnce, Block: blockTime}).Result()
		return err
	})
	if err == redis.Nil { //nolint:errorlint // it is never wrapped
		err = nil
	}
	return streams, err
}

// entries are those of each stream that has any.
func entries(streams []redis.XStream) map[string][]entry {
	lists := make(map[string][]entry, len(streams))
	for _, s := range streams {
		for _, m := range s.Messages {
			lists[s.Stream] = append(lists[s.Stream], entry{at: parsePosition(m.ID), message: m})
		}
	}
	return lists
}

// tell passes on what came.
func (s *shared) tell(sh *shard, stream string, list []entry) {
	s.mu.Lock()
	w := sh.streams[stream]
	if w == nil {
		s.mu.Unlock()
		return
	}
	w.at = list[len(list)-1].at
	if w.number >= 0 {
		w.number += int64(len(list))
	}
	for c := range w.readers {
		c.feed(stream, list, w.number)
	}
	s.mu.Unlock()
	switch stream {
	case newsKey:
		s.d.learn(list)
	case inboxKey(s.d.id):
		s.d.takeIn(list)
	}
}

// learn tells the consumers of new topics.
func (d *Driver) learn(news []entry) {
	ctx, cancel := context.WithTimeout(d.closing, answerTimeout)
	defer cancel()
	for _, n := range news {
		if topic, ok := n.message.Values["topic"].(string); ok && d.isTopic(topic) {
			for _, c := range d.whoWants(topic) {
				c.topic(ctx, topic, n.at)
			}
		}
	}
}
