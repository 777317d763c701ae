package auth

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// untoldShards are the values that the accounts are spread over of which something may have to be told.
const untoldShards = 64

// An untold index finds accounts whose records may have endings that nobody was told of: those of a process that died in between. An account
// is entered before its record has the ending, and taken out by who looks for them, when its time is long over.
type untold struct {
	factory *state.Factory
	now     func() time.Time
	// patience is how long who ended a session has time to tell it himself: longer than one operation takes.
	patience time.Duration
}

// accountsSince are accounts with the time at which they were entered.
type accountsSince map[string]time.Time

func untoldKey(shard int) string { return fmt.Sprintf("untold:%02d", shard) }

// enter notes that something of an account will have to be told.
func (u untold) enter(ctx context.Context, accountID string) error {
	store, err := state.Open[accountsSince](ctx, u.factory, SessionStore)
	if err != nil {
		return err
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(accountID))
	return swap(ctx, store, untoldKey(int(h.Sum32()%untoldShards)), func(v *accountsSince) (bool, time.Duration, error) {
		now := u.now()
		if at, known := (*v)[accountID]; known && now.Sub(at) < u.patience/4 {
			return false, 0, nil
		}
		if *v == nil {
			*v = accountsSince{}
		}
		(*v)[accountID] = now
		return true, memoryOfUntold, nil
	})
}

// due returns the accounts that were entered long enough ago, by shard.
func (u untold) due(ctx context.Context) (map[string]accountsSince, error) {
	store, err := state.Open[accountsSince](ctx, u.factory, SessionStore)
	if err != nil {
		return nil, err
	}
	keys := make([]string, untoldShards)
	for n := range keys {
		keys[n] = untoldKey(n)
	}
	entries, err := store.GetBulk(ctx, keys)
	if err != nil {
		return nil, err
	}
	found, now := map[string]accountsSince{}, u.now()
	for _, e := range entries {
		for accountID, at := range e.Value {
			if now.Sub(at) < u.patience {
				continue
			}
			if found[e.Key] == nil {
				found[e.Key] = accountsSince{}
			}
			found[e.Key][accountID] = at
		}
	}
	return found, nil
}

// leave takes accounts out that were not entered again meanwhile.
func (u untold) leave(ctx context.Context, shard string, told accountsSince) error {
	store, err := state.Open[accountsSince](ctx, u.factory, SessionStore)
	if err != nil {
		return err
	}
	return swap(ctx, store, shard, func(v *accountsSince) (bool, time.Duration, error) {
		before := len(*v)
		for accountID, at := range told {
			if (*v)[accountID].Equal(at) {
				delete(*v, accountID)
			}
		}
		return len(*v) != before, memoryOfUntold, nil
	})
}

// tellLeft tells what others left untold, until the context ends.
func (s *Service) tellLeft(ctx context.Context) {
	tick := time.NewTicker(s.cfg.TellLeftEvery)
	defer tick.Stop()
	for {
		if err := s.tellLeftOnce(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "ends of sessions that others did not tell of could not be told; it is tried again", slog.Any("error", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Service) tellLeftOnce(ctx context.Context) error {
	due, err := s.sessions.untold.due(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for shard, accounts := range due {
		for accountID := range accounts {
			one, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
			err := s.tell(one, accountID)
			cancel()
			if err != nil {
				errs = append(errs, err)
				delete(accounts, accountID)
			}
		}
		errs = append(errs, s.sessions.untold.leave(ctx, shard, accounts))
	}
	return errors.Join(errs...)
}
