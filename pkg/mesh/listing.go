package mesh

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
)

// Endpoints returns the instances of an app-id, by instance id, each with its status as of now. Without
// includeUnhealthy they are those that a request may be sent to; see [Usable]. An app-id that nobody registered has none.
func (r *Registry) Endpoints(ctx context.Context, appID string, includeUnhealthy bool) ([]Endpoint, error) {
	if err := validName("appId", appID); err != nil {
		return nil, err
	}
	return r.endpoints(ctx, []string{appID}, includeUnhealthy)
}

// List returns the instances of all app-ids, by app-id and instance id, selected as Endpoints does for each.
func (r *Registry) List(ctx context.Context, includeUnhealthy bool) ([]Endpoint, error) {
	apps, err := r.apps(ctx)
	if err != nil {
		return nil, err
	}
	return r.endpoints(ctx, apps, includeUnhealthy)
}

func (r *Registry) apps(ctx context.Context) ([]string, error) {
	list, _, err := read[appList](ctx, r.table, keyApps)
	if err = r.forgive(err); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(list.Apps)), nil
}

// endpoints reads the indexes of some app-ids, then all their entries: two calls of the table, however many there are.
func (r *Registry) endpoints(ctx context.Context, apps []string, includeUnhealthy bool) ([]Endpoint, error) {
	now := r.now()
	keys, lines, err := r.index(ctx, apps, now)
	if err != nil {
		return nil, err
	}
	values, err := getMany(ctx, r.table, keys)
	if err != nil {
		return nil, err
	}
	byApp := make(map[string][]Endpoint, len(apps))
	for i, value := range values {
		var e Endpoint
		if value == nil {
			continue
		}
		if err := json.Unmarshal(value, &e); err != nil {
			r.log.Error("a mesh record cannot be decoded and counts as absent", "key", keys[i], "error", err)
			continue
		}
		status, gone := e.at(now)
		if gone {
			continue
		}
		e.Status = lines[i].status(status, now)
		byApp[e.AppID] = append(byApp[e.AppID], e)
	}
	all := make([]Endpoint, 0, len(values))
	for _, app := range apps {
		if includeUnhealthy {
			all = append(all, byApp[app]...)
		} else {
			all = append(all, Usable(byApp[app])...)
		}
	}
	return all, nil
}

// index returns the keys of the instances that app-ids have, with their lines in the index.
func (r *Registry) index(ctx context.Context, apps []string, now time.Time) (keys []string, lines []instanceHealth, err error) {
	indexes := make([]string, len(apps))
	for i, app := range apps {
		indexes[i] = healthKey(app)
	}
	values, err := getMany(ctx, r.table, indexes)
	if err != nil {
		return nil, nil, err
	}
	for i, value := range values {
		if value == nil {
			continue
		}
		var health appHealth
		if err := json.Unmarshal(value, &health); err != nil {
			r.log.Error("a mesh record cannot be decoded and counts as absent", "key", indexes[i], "error", err)
			continue
		}
		for _, line := range health.Instances {
			if !line.Left && now.Sub(line.LastSeen) < GoneAfter {
				keys = append(keys, registryKey(apps[i], line.InstanceID))
				lines = append(lines, line)
			}
		}
	}
	return keys, lines, nil
}
