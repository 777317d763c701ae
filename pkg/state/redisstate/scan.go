package redisstate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/state"
)

var _ state.Scanner = (*engine)(nil)

// A scanCursor is a place in the walk of one server's keys. Redis gives it out as a place in its own table, so it means
// something to no other server, nor to the same one after a restart: run says which one it was.
type scanCursor struct {
	addr  string // of a cluster's master; empty where there is one server
	run   string // of the server's process; empty at the beginning
	place uint64
}

func (c scanCursor) String() string {
	return strings.Join([]string{c.addr, c.run, strconv.FormatUint(c.place, 10)}, "/")
}

func parseScanCursor(text string) (scanCursor, error) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return scanCursor{}, fmt.Errorf("%w: %q is not a place in a walk of Redis", state.ErrCursor, text)
	}
	place, err := strconv.ParseUint(parts[2], 10, 64)
	if err != nil {
		return scanCursor{}, fmt.Errorf("%w: %q is not a place in a walk of Redis", state.ErrCursor, text)
	}
	return scanCursor{addr: parts[0], run: parts[1], place: place}, nil
}

// scanMost is how many keys a server looks at before others have their turn when the caller wants as many: some 3 ms of its time.
const scanMost = 10_000

// Scan implements state.Scanner by SCAN, in a cluster one master after another. The limit is how many of the database's keys are looked
// at, of whatever store, between a hundred and ten thousand: where few of them are the store's, a large one saves most of the calls.
// Slots that are moved between masters during a walk may be missed.
func (e *engine) Scan(ctx context.Context, cursor string, limit int) ([]string, string, error) {
	masters, err := e.lines.masters(ctx)
	if err != nil {
		return nil, "", e.storeError(readError(ctx, err))
	}
	addrs := slices.Sorted(maps.Keys(masters))
	if len(addrs) == 0 {
		return nil, "", e.storeError(fmt.Errorf("%w: the cluster has no master", state.ErrUnavailable))
	}
	at := scanCursor{addr: addrs[0]}
	if cursor != "" {
		if at, err = parseScanCursor(cursor); err != nil {
			return nil, "", e.storeError(err)
		}
	}
	i, known := slices.BinarySearch(addrs, at.addr)
	if !known {
		return nil, "", e.storeError(fmt.Errorf("%w: the walk came to a server that is no master any more", state.ErrCursor))
	}
	keys, err := e.scanServer(ctx, masters[at.addr], &at, min(max(limit, scanBatch), scanMost))
	if err != nil {
		return nil, "", e.storeError(err)
	}
	switch {
	case at.place != 0:
		return keys, at.String(), nil
	case i+1 < len(addrs):
		return keys, scanCursor{addr: addrs[i+1]}.String(), nil
	default:
		return keys, "", nil
	}
}

// scanServer looks at the next of a server's keys, and moves the cursor on.
func (e *engine) scanServer(ctx context.Context, server redis.Cmdable, at *scanCursor, count int) ([]string, error) {
	pipe := server.Pipeline() // one connection, so both answers are of one process
	info := pipe.Info(ctx, "server")
	scan := pipe.Scan(ctx, at.place, escapeGlob(e.prefix)+"*", int64(count))
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, readError(ctx, err)
	}
	_, after, _ := strings.Cut(info.Val(), "run_id:")
	run, _, _ := strings.Cut(after, "\r")
	if at.run != "" && at.run != run {
		return nil, fmt.Errorf("%w: the Redis server was started anew, or is another one now", state.ErrCursor)
	}
	found, place := scan.Val()
	at.run, at.place = run, place
	keys := make([]string, 0, len(found))
	seen := make(map[string]bool, len(found))
	for _, key := range found {
		if !seen[key] {
			seen[key] = true
			keys = append(keys, strings.TrimPrefix(key, e.prefix))
		}
	}
	return keys, nil
}

// masters are the servers that have keys, by their addresses.
func (l *lines) masters(ctx context.Context) (map[string]redis.Cmdable, error) {
	if l.cluster == nil {
		return map[string]redis.Cmdable{"": l.client}, nil
	}
	var mu sync.Mutex
	masters := map[string]redis.Cmdable{}
	err := l.cluster.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		masters[node.Options().Addr] = node
		return nil
	})
	return masters, err
}
