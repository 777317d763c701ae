package memoryevents

import (
	"context"
	"slices"
	"sync"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// keys are those of all subjects of a log.
type keys struct {
	guard     sync.Mutex // not lock, which the marks have
	bySubject map[string]eventstore.SubjectKey
	destroyed int64
}

func (k *keys) KeepKey(ctx context.Context, key eventstore.SubjectKey) (eventstore.SubjectKey, error) {
	k.guard.Lock()
	defer k.guard.Unlock()
	if err := ctx.Err(); err != nil {
		return key, err
	}
	if kept, ok := k.bySubject[key.Subject]; ok {
		return kept, nil
	}
	k.bySubject[key.Subject] = key
	return key, nil
}

func (k *keys) SubjectKeys(ctx context.Context, ids []string) (all []eventstore.SubjectKey, err error) {
	k.guard.Lock()
	defer k.guard.Unlock()
	for _, key := range k.bySubject {
		if slices.Contains(ids, key.ID) {
			all = append(all, key)
		}
	}
	return all, ctx.Err()
}

func (k *keys) DestroyKey(ctx context.Context, subject string) (bool, error) {
	k.guard.Lock()
	defer k.guard.Unlock()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	_, found := k.bySubject[subject]
	if found {
		delete(k.bySubject, subject)
		k.destroyed++
	}
	return found, nil
}

func (k *keys) Destroyed(ctx context.Context) (int64, error) {
	k.guard.Lock()
	defer k.guard.Unlock()
	return k.destroyed, ctx.Err()
}

func (k *keys) KeysUnderOther(ctx context.Context, master string, limit int) (all []eventstore.SubjectKey, err error) {
	k.guard.Lock()
	defer k.guard.Unlock()
	for _, key := range k.bySubject {
		if key.Master != master && len(all) < limit {
			all = append(all, key)
		}
	}
	return all, ctx.Err()
}

func (k *keys) Rewrap(ctx context.Context, key eventstore.SubjectKey, from string) error {
	k.guard.Lock()
	defer k.guard.Unlock()
	if there, ok := k.bySubject[key.Subject]; ok && there.ID == key.ID && there.Master == from {
		k.bySubject[key.Subject] = key
	}
	return ctx.Err()
}
