package redisbus

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Keys of the bus's own begin with "bannou:". What is in braces decides the slot in a cluster: all keys of one queue
// share one, and so do all of the registry, because scripts change them together.

func ownKey(queue string) string       { return "bannou:{" + queue + "}:own" }
func delayedKey(queue string) string   { return "bannou:{" + queue + "}:delayed" }
func movedKey(queue string) string     { return "bannou:{" + queue + "}:moved" }
func positionsKey(queue string) string { return "bannou:{" + queue + "}:positions" }
func expiredKey(queue string) string   { return "bannou:{" + queue + "}:expired" }
func exchangeKey(exchange string) string {
	return "bannou:{" + exchange + "}:exchange"
}
func inboxKey(driver string) string { return "bannou:{" + driver + "}:inbox" }

// The registry: which topics, exchanges and queues there are.
const (
	queuesKey    = "bannou:{registry}:queues"    // hash: queue -> its record
	versionKey   = "bannou:{registry}:version"   // counts the changes of the hash
	topicsKey    = "bannou:{registry}:topics"    // sorted set of topics by when they were last published to, in ms
	newsKey      = "bannou:{registry}:news"      // stream of the topics that came
	exchangesKey = "bannou:{registry}:exchanges" // set of the other exchanges
	unreadKey    = "bannou:{registry}:unread"    // hash: queue that expires -> since when nobody has been seen to read it, in ms
	removedKey   = "bannou:{registry}:removed"   // sorted set of queues that were deleted, by when
	expiringKey  = "bannou:{registry}:expiring"  // sorted set of streams with messages that expire, by when the last does
)

// readersKey is a sorted set of who reads a queue, by when that is to be taken for dead.
func readersKey(queue string) string { return "bannou:{registry}:readers:" + queue }

// noStream reports whether Redis said that a key is not there, or is something else than a stream.
func noStream(err error) bool {
	return redis.HasErrorPrefix(err, "no such key") || redis.HasErrorPrefix(err, "WRONGTYPE")
}

// position is the id of an entry of a stream.
type position struct{ ms, seq uint64 }

func (p position) String() string { return fmt.Sprintf("%d-%d", p.ms, p.seq) }

func (p position) less(q position) bool { return p.ms < q.ms || p.ms == q.ms && p.seq < q.seq }

// mark is a position with the number that Redis gave the entry there: how many it had added to the stream with it.
// Negative: the number is not known.
type mark struct {
	position

	number int64
}

// parsePosition reads an id; what is none is the beginning.
func parsePosition(id string) position {
	ms, seq, _ := strings.Cut(id, "-")
	var p position
	p.ms, _ = strconv.ParseUint(ms, 10, 64)
	p.seq, _ = strconv.ParseUint(seq, 10, 64)
	return p
}
