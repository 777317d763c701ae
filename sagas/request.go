package sagas

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// Sagas are the versions of all sagas that the engine has, by name, the newest last.
func (e *Engine) Sagas() []*Saga {
	var all []*Saga
	for _, name := range e.names {
		f := e.families[name]
		first := len(all)
		for _, s := range f.versions {
			all = append(all, s)
		}
		slices.SortFunc(all[first:], func(a, b *Saga) int { return a.version - b.version })
	}
	return all
}

// Saga is a version of a saga; 0: the newest. ErrUnknownSaga, ErrUnknownVersion: there is none.
func (e *Engine) Saga(name string, version int) (*Saga, error) {
	f, err := e.family(name)
	if err != nil {
		return nil, err
	}
	if version == 0 {
		return f.newest, nil
	}
	if s := f.versions[version]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("%w: saga %q has no version %d here", ErrUnknownVersion, name, version)
}

func (e *Engine) family(name string) (*family, error) {
	if f := e.families[name]; f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrUnknownSaga, name)
}

// Get returns an instance as it is. ErrNoInstance: there is none.
func (e *Engine) Get(ctx context.Context, saga, key string) (Instance, error) {
	f, err := e.family(saga)
	if err != nil {
		return Instance{}, err
	}
	i, err := e.load(ctx, f, key)
	if err == nil && i.Version == 0 {
		err = fmt.Errorf("%w: saga %q, key %q", ErrNoInstance, saga, key)
	}
	return i, err
}

// History returns what an instance was given, and what it was after each of it, from its begin. Instances without one have none.
func (e *Engine) History(ctx context.Context, saga, key string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		f, err := e.family(saga)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for event, err := range e.cfg.Store.ReadStream(ctx, f.stream(key), eventstore.ReadOptions{}) {
			var r record
			if err == nil {
				r, err = recorded(&event)
			}
			if !yield(Entry(r), err) || err != nil {
				return
			}
		}
	}
}

// An Entry is one event of an instance: what it was given, what it was after that, and what was published because of it.
type Entry record

// Retry has a parked instance try again what it stopped at. ErrNotNow: it is not parked.
func (e *Engine) Retry(ctx context.Context, saga, key string, r Request) (Instance, error) {
	return e.request(ctx, saga, key, KindRetry, r)
}

// Compensate has the steps of a running or parked instance undone. ErrNotNow: it is neither.
func (e *Engine) Compensate(ctx context.Context, saga, key string, r Request) (Instance, error) {
	return e.request(ctx, saga, key, KindCompensate, r)
}

// Cancel ends an instance as it is: nothing is undone. ErrNotNow: it has ended.
func (e *Engine) Cancel(ctx context.Context, saga, key string, r Request) (Instance, error) {
	return e.request(ctx, saga, key, KindCancel, r)
}

// request gives an instance what a person asks for.
func (e *Engine) request(ctx context.Context, saga, key string, kind Kind, r Request) (Instance, error) {
	if _, err := e.Get(ctx, saga, key); err != nil {
		return Instance{}, err
	}
	body, err := json.Marshal(r)
	if err != nil {
		return Instance{}, err
	}
	turn, err := e.deliver(ctx, e.families[saga], key, Message{ID: uuid.NewString(), Kind: kind, Body: body})
	if err == nil && turn.Nothing {
		err = fmt.Errorf("%w: instance %q of saga %q cannot be asked to %s: %s", ErrNotNow, key, saga, kind, turn.Reason)
	}
	return turn.Instance, err
}
