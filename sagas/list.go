package sagas

import (
	"context"
	"slices"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// MaxList is the longest list that List gives.
const MaxList = 1000

// scanned is how many events one List looks at. What is not found among them is looked for by the next, which has the cursor.
const scanned = 20_000

// A Filter says which instances are meant: those that match all that is set.
type Filter struct {
	Saga   string   // required
	Status []Status // any of these
	State  string

	Limit  int   // 1 to MaxList. Default: 100
	Before int64 // only instances that last changed before this position of the log: the cursor of a page before. Default: all
}

// A List is one page.
type List struct {
	Instances []Instance // those that changed last come first
	Cursor    int64      // for the next page; 0: there is none
}

// List lists instances. Those that have not ended are found among the newest events of the saga; to list others is to read its log backward: one call
// reads so many events at most, and its page may be short, or empty, and not the last.
func (e *Engine) List(ctx context.Context, filter Filter) (List, error) {
	f, err := e.family(filter.Saga)
	if err != nil {
		return List{}, err
	}
	limit := filter.Limit
	if limit < 1 || limit > MaxList {
		limit = min(100, MaxList)
	}
	var floor int64
	if len(filter.Status) > 0 && !slices.ContainsFunc(filter.Status, Status.Ended) {
		if floor, err = f.agenda.floor(ctx); err != nil {
			return List{}, err
		}
	}
	list, looked, last := List{Instances: []Instance{}}, 0, int64(0)
	seen := map[string]bool{}
	options := eventstore.ReadOptions{Backward: true}
	if filter.Before > 0 {
		if options.From = filter.Before - 1; options.From == 0 {
			return list, nil
		}
	}
	for event, err := range e.cfg.Store.ReadCategory(ctx, f.category(), options) {
		if err != nil {
			return List{}, err
		}
		if event.Position <= floor {
			return list, nil
		}
		if looked == scanned || len(list.Instances) == limit {
			list.Cursor = last
			return list, nil
		}
		looked++
		last = event.Position
		if seen[event.Stream.ID] {
			continue
		}
		seen[event.Stream.ID] = true
		r, err := recorded(&event)
		if err != nil {
			return List{}, err
		}
		if !filter.matches(&r.Instance) {
			continue
		}
		if filter.Before > 0 { // it may have changed since, and be on a page before
			now, err := e.load(ctx, f, r.Instance.Key)
			if err != nil {
				return List{}, err
			}
			if now.Version != r.Instance.Version {
				continue
			}
		}
		list.Instances = append(list.Instances, r.Instance)
	}
	return list, nil
}

func (f *Filter) matches(i *Instance) bool {
	return (len(f.Status) == 0 || slices.Contains(f.Status, i.Status)) && (f.State == "" || f.State == i.State)
}

// floor is the position up to which no instance is open.
func (a *agenda) floor(ctx context.Context) (int64, error) {
	marks, err := a.engine.cfg.Store.Marks(ctx, a.name)
	if err != nil || len(marks) < len(a.news) {
		return 0, err
	}
	floor := marks[0].Position
	for _, m := range marks {
		floor = min(floor, m.Position)
	}
	return floor, nil
}
