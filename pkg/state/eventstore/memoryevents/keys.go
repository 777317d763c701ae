package memoryevents

import (
	"context"
	"slices"
	"sync"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// keys are those of all subjects of a log.
type keys struct {
	lock      sync.Mutex
	bySubject map[string]eventstore.SubjectKey
}

func (k *keys) KeepKey(ctx context.Context, key eventstore.SubjectKey) (eventstore.SubjectKey, error) {
	k.lock.Lock()
	defer k.lock.Unlock()
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
	k.lock.Lock()
	defer k.lock.Unlock()
	for _, key := range k.bySubject {
		if slices.Contains(ids, key.ID) {
			all = append(all, key)
		}
	}
	return all, ctx.Err()
}

func (k *keys) DestroyKey(ctx context.Context, subject string) (bool, error) {
	k.lock.Lock()
	defer k.lock.Unlock()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	_, found := k.bySubject[subject]
	delete(k.bySubject, subject)
	return found, nil
}

func (k *keys) KeysUnderOther(ctx context.Context, master string, limit int) (all []eventstore.SubjectKey, err error) {
	k.lock.Lock()
	defer k.lock.Unlock()
	for _, key := range k.bySubject {
		if key.Master != master && len(all) < limit {
			all = append(all, key)
		}
	}
	return all, ctx.Err()
}

func (k *keys) Rewrap(ctx context.Context, key eventstore.SubjectKey, from string) error {
	k.lock.Lock()
	defer k.lock.Unlock()
	if there, ok := k.bySubject[key.Subject]; ok && there.ID == key.ID && there.Master == from {
		k.bySubject[key.Subject] = key
	}
	return ctx.Err()
}
